// Prompt suggestions: prompts the loaded model is known to handle, else general FLUX.1 Kontext prompts.
import { language, t } from './text.js';

const DEFAULTS = {
  edit: ['clothes', 'poster', 'views', 'background', 'style', 'add'],
  box: ['box.replace', 'box.remove'],
  generate: ['words.character', 'words.scene', 'words.sticker'],
};

/**
 * @param {?object} capabilities of the server
 * @param {'edit' | 'box' | 'generate'} use
 * @returns {{label: string, prompt: string}[]} in the language of the page; brackets mark the part to replace
 */
export function suggestions(capabilities, use) {
  const model = capabilities?.model;
  if (!model) return []; // still loading
  if (!model.suggestions) return DEFAULTS[use].map((name) => ({ label: t(`preset.${name}`), prompt: t(`preset.${name}.prompt`) }));
  const known = (kind) => model.suggestions.filter((suggestion) => suggestion.use === kind);
  const found = use === 'box' && !known('box').length ? known('edit') : known(use);
  const said = (texts) => texts[language] ?? texts.en;
  return found.map(({ label, prompt }) => ({ label: said(label), prompt: said(prompt) }));
}
