// The tree of turns: pure functions over plain data. A node is a turn, or a job that will become one (`node.job`).

/** All turns and visible jobs of a session, in creation order. */
export function nodes(state) {
  if (!state.session) return [];
  const turns = Object.values(state.session.turns).sort((a, b) => a.number - b.number);
  const jobs = Object.values(state.jobs)
    .filter((job) => job.prompt !== undefined && job.session === state.session.id)
    .filter((job) => !state.session.turns[job.id])
    .sort((a, b) => a.created - b.created || (a.seed ?? 0) - (b.seed ?? 0));
  return [...turns, ...jobs.map((job) => ({ ...job, name: '', job }))];
}

/** Whether a job is being sent, queued or running. */
export const isActive = (job) => ['sending', 'queued', 'running'].includes(job.state);

export function node(state, id) {
  return nodes(state).find((item) => item.id === id) ?? null;
}

/** The finished turn that is shown: the selected turn, or the parent of the selected job. */
export function base(state) {
  const at = node(state, state.here);
  if (!at) return null;
  return at.job ? (state.session.turns[at.parent] ?? null) : at;
}

/** From the first picture to `id`. */
export function path(state, id) {
  const all = new Map(nodes(state).map((item) => [item.id, item]));
  const found = [];
  for (let at = all.get(id); at; at = all.get(at.parent)) found.unshift(at);
  return found;
}

export function children(state, id) {
  return nodes(state).filter((item) => item.parent === id);
}

/** The variants of a turn, including itself: same parent, same prompt. */
export function siblings(state, id) {
  const at = node(state, id);
  return nodes(state).filter((item) => item.parent === at?.parent && item.prompt === at.prompt);
}

/** The sibling `by` positions to the right, wrapping around; null if there is none. */
export function neighbor(state, by) {
  const all = siblings(state, state.here);
  const place = all.findIndex((item) => item.id === state.here);
  return all.length > 1 ? all[(place + by + all.length) % all.length].id : null;
}

export function undoTarget(state) {
  return node(state, state.here)?.parent ?? null;
}

/** Of the turns made from the shown one, the one visited last. */
export function redoTarget(state) {
  const following = children(state, state.here).filter((item) => !item.job || isActive(item.job));
  const last = following.find((item) => item.id === state.ahead[state.here]);
  return (last ?? following.at(-1))?.id ?? null;
}

/** The turn and everything made from it. */
export function subtree(state, id) {
  const inside = new Set([id]);
  for (const item of nodes(state)) if (inside.has(item.parent)) inside.add(item.id);
  return inside;
}

/**
 * The tree as rows from top to bottom. Variants (same parent, same prompt) share a row; a conversation without
 * branches stays in one column, each branch moves one to the right. `branch`: the row begins a branch, so its parent
 * may be further up; `rails`: columns of parents whose later branches follow below.
 * @returns {{depth: number, members: object[], branch: boolean, rails: number[]}[]}
 */
export function rows(state) {
  const childrenOf = new Map();
  for (const item of nodes(state)) {
    const key = item.parent ?? null;
    childrenOf.set(key, [...(childrenOf.get(key) ?? []), item]);
  }
  const result = [];
  const walk = (parent, depth, rails) => {
    const groups = samePrompt(childrenOf.get(parent) ?? []);
    groups.forEach((members, index) => {
      const branch = groups.length > 1;
      const at = branch ? depth + 1 : depth;
      const through = branch && index < groups.length - 1 ? [...rails, depth] : rails;
      result.push({ depth: at, members, branch, rails: through });
      const grown = members.filter((item) => childrenOf.has(item.id));
      for (const item of grown) walk(item.id, grown.length > 1 ? at + 1 : at, through);
    });
  };
  walk(null, 0, []);
  return result;
}

function samePrompt(list) {
  const groups = new Map();
  for (const item of list) groups.set(item.prompt, [...(groups.get(item.prompt) ?? []), item]);
  return [...groups.values()];
}
