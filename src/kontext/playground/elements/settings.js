// The row under the prompt: size, seed, count, lock and advanced settings; each shows its value.
import * as act from '../core/actions.js';
import { html, nothing, Part } from '../core/store.js';
import { ASPECTS, outputSize, parse, usedPart } from '../core/sizes.js';
import { t } from '../core/text.js';
import { tooLong } from '../core/tokens.js';
import { tokensHere } from '../core/words.js';
import { chosenModel } from '../core/state.js';
import { base } from '../core/tree.js';
import { styleProps } from '../core/style.js';
import { icon } from './icons.js';
import { Menu } from './menu.js';

const COUNTS = [1, 2, 3, 4];
const SAMPLERS = ['euler', 'ab2', 'midpoint'];
const EXPAND = /^\s*(\d{1,6}(\s*,\s*\d{1,6}){3}|\d{1,5}\s*:\s*\d{1,5})\s*$/;

class Settings extends Part {
  #menu = new Menu(this);

  get native() {
    return this.state.capabilities?.model?.native_sizes ?? [[256, 256]];
  }

  #size(original) {
    const { size } = this.state.settings;
    const out = outputSize(size, original, this.native) ?? [0, 0];
    const [x, y, w, h] = usedPart(size, original, this.native).map((share) => `${share * 100}%`);
    const turn = base(this.state);
    const aspects = original ? ASPECTS : ASPECTS.slice(1);
    const chosen = !original && size === 'match' ? '1:1' : size;
    return html`<details class="menu">
      <summary class="setting"><span class="ratio" ${styleProps({ '--aspect': out[0] / out[1] || 1 })}></span>${out.join(' × ')}</summary>
      <div class="panel sizes">
        ${
          turn?.thumbnail
            ? html`<div class="crop" ${styleProps({ '--aspect': original[0] / original[1] })}>
              <img src=${turn.thumbnail} alt="" />
              <div class="used" ${styleProps({ left: x, top: y, width: w, height: h })}></div>
            </div>`
            : nothing
        }
        <fieldset class="aspects">
          <legend>${t('size')}</legend>
          ${aspects.map(
            (aspect) => html`<label class="aspect"><input type="radio" name="aspect" value=${aspect} .checked=${aspect === chosen}
              @change=${() => act.setSettings({ size: aspect })} />
            <span class="ratio" ${styleProps({ '--aspect': (([a, b]) => a / b)(outputSize(aspect, original, this.native) ?? [1, 1]) })}></span>
            <span>${aspect === 'match' ? t('size.match') : aspect}</span></label>`,
          )}
        </fieldset>
        <label class="field">${t('size.own')}<input type="text" inputmode="text" placeholder="640x480" .value=${/x/.test(size) ? size : ''}
          @change=${(event) => this.#own(event.target)} /></label>
        <p class="note">${t('size.out', { w: out[0], h: out[1] })}</p>
      </div>
    </details>`;
  }

  #own(field) {
    const right = field.value && parse(field.value);
    field.setAttribute('aria-invalid', String(Boolean(field.value) && !right));
    if (right) act.setSettings({ size: field.value.replace(/\s/g, '').toLowerCase().replace('×', 'x') });
  }

  #seed() {
    const { seed } = this.state.settings;
    return html`<details class="menu">
      <summary class="setting">${icon(seed === null ? 'seed' : 'lock')}<span class="value">${seed === null ? t('seed.drawn') : t('seed.locked', { seed })}</span></summary>
      <div class="panel">
        <fieldset>
          <legend>${t('seed')}</legend>
          <label class="option"><input type="radio" name="seed" .checked=${seed === null} @change=${() => act.setSettings({ seed: null })} />${t('seed.draw')}</label>
          <label class="option"><input type="radio" name="seed" .checked=${seed !== null} @change=${() => seed === null && act.toggleSeed()} />${t('seed.lock')}</label>
        </fieldset>
        <label class="field">${t('seed.number')}<input type="number" min="0" max="9007199254740991" step="1" .value=${String(seed ?? '')}
          @change=${(event) => event.target.validity.valid && act.setSettings({ seed: event.target.value === '' ? null : Number(event.target.value) })} /></label>
        <p class="note">${t('seed.note')}</p>
      </div>
    </details>`;
  }

  #count() {
    const { count } = this.state.settings;
    const most = this.state.capabilities?.limits.variants ?? 4;
    return html`<fieldset class="count" aria-label=${t('count')}>${icon('variants')}
      ${COUNTS.filter((n) => n <= most).map(
        (n) => html`<label data-tip=${t('count.n', { n: n })}><input type="radio" name="count" value=${n} .checked=${n === count}
        aria-label=${t('count.n', { n: n })} @change=${() => act.setSettings({ count: n })} /><span aria-hidden="true">${n}</span></label>`,
      )}
    </fieldset>`;
  }

  /** Choice of the model, where the server has several. */
  #model() {
    const chosen = chosenModel(this.state);
    if (!chosen) return nothing;
    return html`<label class="field">${t('model')}<select @change=${({ target }) => act.chooseModel(target.value)}>
      ${this.state.capabilities.models.map(({ name }) => html`<option value=${name} ?selected=${name === chosen}>${name}</option>`)}</select></label>`;
  }

  #fine() {
    const { steps, guidance, strength, sampler, expand, lock, expand_prompt: longer } = this.state.settings;
    const { limits, model, models, features } = this.state.capabilities ?? {};
    const chosen = chosenModel(this.state);
    const original = base(this.state)?.size ?? null;
    const set = (name, field, right = true) => {
      field.setAttribute('aria-invalid', String(!right));
      if (right) act.setSettings({ [name]: field.value.trim() || null });
    };
    const text = (name, hint, pattern) => html`<label class="field">${t(name)}
      <input type="text" maxlength="10000" placeholder=${hint} .value=${this.state.settings[name] ?? ''}
        @change=${({ target }) => set(name, target, !pattern || !target.value.trim() || pattern.test(target.value))} /></label>`;
    const number = (name, value, [least, most], step, usual) => html`<label class="field">${t(name)}
      <input type="number" min=${least} max=${most} step=${step} placeholder=${usual ?? ''} .value=${String(value ?? '')}
        @change=${(event) => event.target.validity.valid && act.setSettings({ [name]: event.target.value === '' ? null : Number(event.target.value) })} /></label>`;
    return html`<details class="menu fine">
      <summary class="setting" aria-label=${t('fine')}>${icon('more')}${[chosen !== models?.[0]?.name && chosen, steps && t('fine.steps', { n: steps }), guidance && t('fine.guidance', { n: guidance }), original && expand, !lock && t('lock.off')].filter(Boolean).join(' · ')}</summary>
      <div class="panel end">
        ${this.#model()}
        ${number('steps', steps, limits?.steps ?? [1, 200], 1, model?.steps)}
        ${number('guidance', guidance, limits?.guidance ?? [1, 30], 0.1, model?.guidance)}
        ${text('negative_prompt', t('negative_prompt.hint'))}
        ${original ? html`${number('strength', strength, [0.01, 1], 'any', 1)} ${text('expand', '16:9', EXPAND)}` : nothing}
        <label class="field">${t('sampler')}<select .value=${sampler ?? 'euler'} @change=${({ target }) => act.setSettings({ sampler: target.value === 'euler' ? null : target.value })}>
          ${SAMPLERS.map((name) => html`<option value=${name} ?selected=${name === (sampler ?? 'euler')}>${t(`sampler.${name}`)}</option>`)}</select></label>
        ${
          features?.expand_prompt
            ? html`<label class="option"><input type="checkbox" .checked=${longer} @change=${(event) => act.setSettings({ expand_prompt: event.target.checked })} />${t('expand_prompt')}</label>`
            : nothing
        }
        <label class="option"><input type="checkbox" .checked=${lock} @change=${(event) => act.setSettings({ lock: event.target.checked })} />${t('lock')}</label>
        <p class="note">${t('lock.note')}</p>
      </div>
    </details>`;
  }

  /** Length of a prompt that is near the model's limit. */
  #tokens() {
    const here = tokensHere(this.state);
    if (!here) return nothing;
    const { count, limit } = here;
    return html`<span id="tokens" class="tokens ${count > limit ? 'over' : ''}" data-tip=${t('tokens', { n: count, limit })} data-side="top-end">
      <span aria-hidden="true">${count} / ${limit}</span><span class="spoken">${tooLong(this.state) ?? t('tokens', { n: count, limit })}</span></span>`;
  }

  render() {
    const { prefill } = this.state;
    const original = base(this.state)?.size ?? null;
    return html`<div class="settings">
      ${this.#size(original)} ${this.#seed()} ${this.#count()} ${this.#fine()}
      ${this.#tokens()}
      ${prefill !== null && original ? html`<span class="prefill">${icon('bolt')}<span class="long">${t('prefill', { n: prefill })}</span><span class="short" aria-hidden="true">${t('milliseconds', { n: prefill })}</span></span>` : nothing}
    </div>`;
  }

  updated() {
    this.#menu.watch();
  }
}

customElements.define('kontext-settings', Settings);
