// Style properties from data, set through the CSSOM: a `style` attribute would need an unsafe content policy.
import { Directive, directive, noChange } from '../vendor/lit/lit.js';

class Look extends Directive {
  update({ element }, [properties]) {
    for (const [name, value] of Object.entries(properties)) element.style.setProperty(name, value);
    return noChange;
  }
}

/** `<div ${look({ '--depth': 2 })}>`; the set of names must not change between drawings. */
export const look = directive(Look);
