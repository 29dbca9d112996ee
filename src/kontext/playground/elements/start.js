// The start page: headline, upload button, prompt, and example pictures.
import * as act from '../core/actions.js';
import { openFile } from '../core/files.js';
import { openExample, suggested } from '../core/sessions.js';
import { html, nothing, Part } from '../core/store.js';
import { t } from '../core/text.js';
import './composer.js';
import { icon } from './icons.js';

const SHOWN = 6;

class Start extends Part {
  #example(example) {
    return html`<li>
      <button type="button" class="example" @click=${() => openExample(example)}>
        <img src=${example.picture} alt="" width="256" height="256" decoding="async" />
        <span class="ask">${suggested(example) || example.title}</span>
        <span class="spoken">${t('example.open', { title: example.title })}</span>
      </button>
    </li>`;
  }

  render() {
    const { examples } = this.state;
    return html`<section class="opening">
        <h1><span>${t('headline.say')}</span> <span><em>${t('headline.only')}</em>${t('headline.rest')}</span></h1>
        <p class="lead">${t('lead')}</p>
        <div class="begin">
          <button type="button" class="primary" @click=${() => act.choose(openFile)}>
            ${icon('picture')}${t('open.picture')}
          </button>
          <button type="button" class="quiet camera" @click=${() => act.choose(openFile, true)}>
            ${icon('camera')}${t('open.camera')}
          </button>
          <span class="or">${t('open.or')}</span>
        </div>
        <h2 class="alone">${t('words.alone')}</h2>
        <kontext-composer></kontext-composer>
      </section>
      ${
        examples.length
          ? html`<section class="examples" aria-label=${t('examples')}>
            <h2>${t('examples')}</h2>
            <ul>${examples.slice(0, SHOWN).map((example) => this.#example(example))}</ul>
          </section>`
          : nothing
      }`;
  }
}

customElements.define('kontext-start', Start);
