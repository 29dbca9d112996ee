// Style properties from data, set through the CSSOM: a `style` attribute would need an unsafe content security policy.
import { Directive, directive, noChange } from '../vendor/lit/lit.js';

class StyleProps extends Directive {
  /**
   * @param {{element: HTMLElement}} part
   * @param {[Record<string, string | number>]} values
   */
  update({ element }, [properties]) {
    for (const [name, value] of Object.entries(properties)) element.style.setProperty(name, String(value));
    return noChange;
  }
}

/** `<div ${styleProps({ '--depth': 2 })}>`; the set of names must stay the same across renders. */
export const styleProps = directive(StyleProps);
