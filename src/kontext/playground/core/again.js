// The same once more: a turn's words on the first picture, or a whole line of turns on another picture.
import { goTo } from './actions.js';
import { api } from './api.js';
import { openFile } from './files.js';
import { attempt } from './notices.js';
import { fetchReference } from './references.js';
import { restorePrompt } from './sessions.js';
import { isActive, withJobs } from './state.js';
import { store } from './store.js';
import { base, path } from './tree.js';

/** Against the loss of many turns: the words of a turn, to be sent from the first picture. */
export function reuseOnFirst(turn) {
  goTo(path(store.state, turn.id)[0].id);
  restorePrompt(turn.prompt);
}

/** All edits that led to `turn`, one after the other, on another picture in a session of its own. */
export async function repeatOn(file, turn) {
  const edits = path(store.state, turn.id).filter((one) => one.kind === 'edit');
  const before = store.state.session.id;
  await openFile(file);
  const { id } = store.state.session ?? {};
  if (!id || id === before) return; // it was no picture; that has been said
  let parent = base(store.state);
  for (const edit of edits) {
    const { steps, guidance, lock = true } = edit.settings;
    const told = await attempt(async () => {
      const references = (await Promise.all(edit.references.map(fetchReference))).map((one) => one.picture);
      const body = { parent: parent.id, prompt: edit.prompt, seed: edit.seed, steps, guidance, lock, references };
      return api.edit(id, body);
    });
    if (!told || store.state.session?.id !== id) return;
    store.set((state) => withJobs(state, told.jobs));
    parent = await finished(id, told.jobs[0].id);
    if (!parent) return;
  }
}

/** The turn that a job has become; null when it came to nothing or the session was left. */
function finished(session, job) {
  return new Promise((done) => {
    const look = () => {
      const { session: open, jobs } = store.state;
      const turn = open?.id === session ? open.turns[job] : null;
      if (!turn && open?.id === session && jobs[job] && isActive(jobs[job])) return;
      store.watchers.delete(look);
      done(turn ?? null);
    };
    store.watchers.add(look);
    look();
  });
}
