// Three small dialogs: keyboard shortcuts, turn details, and login.
import * as act from '../core/actions.js';
import { repeatOn, reuseOnFirst } from '../core/replay.js';
import { referenceTurn } from '../core/references.js';
import { api } from '../core/api.js';
import { KEYS, setSingleKeys, singleKeys } from '../core/keys.js';
import { explained } from '../core/notices.js';
import { download, downloadSession, share } from '../core/saving.js';
import { boot } from '../core/sessions.js';
import { html, nothing, store } from '../core/store.js';
import { duration, percent, t } from '../core/text.js';
import { base } from '../core/tree.js';
import { sentences } from '../core/words.js';
import { Dialog } from './dialog.js';

const NAMES = { ' ': 'Space', ArrowUp: '↑', Escape: 'Esc', Enter: 'Enter', 'Shift+Enter': 'Shift Enter' };

class Help extends Dialog {
  panel = 'help';

  content() {
    return html`<dl class="keys">
        ${KEYS.map((shortcut) => html`<div><dt><kbd>${NAMES[shortcut.key] ?? shortcut.key.toUpperCase()}</kbd></dt><dd>${t(`key.${shortcut.name}`)}</dd></div>`)}
      </dl>
      <label class="option"><input type="checkbox" .checked=${singleKeys()} @change=${(event) => setSingleKeys(event.target.checked)} />${t('keys.single')}</label>
      <p class="note">${t('help.pointing')}</p>`;
  }
}

class Details extends Dialog {
  panel = 'details';
  static properties = { sure: { state: true } };

  get open() {
    return super.open && Boolean(base(this.state));
  }

  close() {
    this.sure = false;
    super.close();
  }

  #rows(turn) {
    const { facts, settings } = turn;
    const parent = this.state.session.turns[turn.parent];
    return {
      prompt: turn.prompt || null,
      from: parent ? `${parent.number} · ${parent.name || parent.prompt || t('original')}` : null,
      turn: turn.number,
      seed: turn.seed,
      size: turn.size.join(' × '),
      steps: facts.steps,
      guidance: facts.guidance,
      model: facts.model,
      changed: facts.changed_fraction === undefined || turn.kind !== 'edit' ? null : percent(facts.changed_fraction),
      evaluations: facts.evaluations,
      time: facts.seconds?.total ? duration(facts.seconds.total) : null,
      box: settings.box?.join(', '),
      ...Object.fromEntries(['negative_prompt', 'strength', 'sampler', 'expand'].map((name) => [name, settings[name]])),
      lock: settings.lock === undefined ? null : t(settings.lock ? 'on' : 'off'),
    };
  }

  content() {
    const turn = base(this.state);
    const then = (work) => () => (this.close(), work());
    const button = (name, run, kind = '') => html`<button type="button" class="quiet ${kind}" @click=${run}>${t(name)}</button>`;
    return html`<div class="made">
        ${turn.thumbnail ? html`<img src=${turn.thumbnail} alt="" />` : nothing}
        <label class="field">${t('turn.name')}<input type="text" maxlength="200" .value=${turn.name} placeholder=${turn.prompt || t('original')}
          @change=${(event) => act.renameTurn(turn, event.target.value)} /></label>
      </div>
      <dl class="facts">
        ${Object.entries(this.#rows(turn))
          .filter(([, value]) => value !== null && value !== undefined)
          .map(
            ([name, value]) =>
              html`<div class=${['prompt', 'from', 'negative_prompt'].includes(name) ? 'wide' : ''}><dt>${t(`fact.${name}`)}</dt><dd dir="auto">${value}</dd></div>`,
          )}
      </dl>
      ${(turn.facts.warnings ?? []).map((warning) => html`<p class="note">${sentences(warning)}</p>`)}
      ${this.#group('again', [
        turn.prompt &&
          button(
            'reuse.prompt',
            then(() => act.reuse(turn)),
          ),
        turn.prompt &&
          button(
            'reuse.all',
            then(() => act.reuse(turn, true)),
          ),
        turn.parent &&
          button(
            'reuse.first',
            then(() => reuseOnFirst(turn)),
          ),
        turn.parent && button('reuse.other', () => act.choose((file) => (this.close(), repeatOn(file, turn)))),
        turn.picture &&
          button(
            'reuse.reference',
            then(() => referenceTurn(turn)),
          ),
      ])}
      ${this.#group('keep', [
        turn.picture && button('download.chain', () => download(turn)),
        turn.picture && button('download.bare', () => download(turn, true)),
        turn.picture && button('share', () => share(turn)),
        button('download.session', downloadSession),
        turn.parent &&
          button(
            this.sure ? 'delete.sure' : 'delete.turn',
            () => (this.sure ? (this.close(), act.deleteTurn(turn)) : (this.sure = true)),
            'danger',
          ),
      ])}`;
  }

  #group(name, buttons) {
    const shown = buttons.filter(Boolean);
    return shown.length
      ? html`<section class="group"><h3>${t(`details.${name}`)}</h3><div class="choices">${shown}</div></section>`
      : nothing;
  }
}

class Login extends Dialog {
  panel = 'login';
  static properties = { wrong: { state: true } };

  get open() {
    return this.state.login;
  }

  close() {
    store.set({ login: false });
  }

  async #enter(event) {
    event.preventDefault();
    const key = this.querySelector('input').value;
    try {
      await api.login(key);
    } catch (error) {
      const { code, title, text } = explained(error);
      this.wrong = code === 'no_key' ? t('login.wrong') : `${title}. ${text}`;
      this.querySelector('input').select();
      return;
    }
    this.wrong = '';
    this.close();
    boot();
  }

  content() {
    return html`<form @submit=${this.#enter}>
      <p class="note">${t('login.note')}</p>
      <label class="field">${t('login.key')}<input type="password" autocomplete="current-password" required
        aria-invalid=${String(Boolean(this.wrong))} aria-describedby="login-wrong" /></label>
      <p class="wrong" id="login-wrong" role="alert">${this.wrong ?? ''}</p>
      <div class="choices"><button class="primary">${t('login.enter')}</button></div>
    </form>`;
  }
}

customElements.define('kontext-help', Help);
customElements.define('kontext-details', Details);
customElements.define('kontext-login', Login);
