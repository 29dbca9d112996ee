// Length of the prompt in tokens. The server counts them, once the prompt is long enough to come near the model's limit.
import { api } from './api.js';
import { say } from './notices.js';
import { chosenModel } from './state.js';
import { store } from './store.js';
import { t } from './text.js';
import { mayReach, NEAR, tokensHere } from './words.js';

const PAUSE_MILLISECONDS = 250;

let timer;
let seen = null; // prompt and model that were counted last

/** Why the prompt cannot be sent, in words; null if it can. */
export function tooLong(state) {
  const here = tokensHere(state);
  return here && here.count > here.limit ? t('tokens.over', { n: here.count, limit: here.limit }) : null;
}

async function count(prompt) {
  const model = chosenModel(store.state);
  const response = await api.tokens(prompt, model).catch(() => null);
  if (!response?.tokens || model !== chosenModel(store.state)) return;
  const before = tooLong(store.state);
  store.set({ tokens: { prompt, count: response.tokens } });
  const now = tooLong(store.state);
  if (now && !before) say(now);
}

store.watchers.add(() => {
  const { draft, capabilities } = store.state;
  const { prompt } = draft;
  const now = `${capabilities?.model?.name} ${prompt}`;
  if (now === seen) return;
  seen = now;
  clearTimeout(timer);
  const limit = capabilities?.limits.prompt_tokens;
  if (limit && mayReach(prompt, NEAR * limit)) timer = setTimeout(count, PAUSE_MILLISECONDS, prompt);
});
