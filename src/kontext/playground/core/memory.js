// What this browser stores between visits: language, theme, prompts, drafts. Pictures are stored on the server.

export function recall(key, fallback) {
  try {
    return JSON.parse(localStorage.getItem(`kontext.${key}`)) ?? fallback;
  } catch {
    return fallback;
  }
}

export function keep(key, value) {
  try {
    if (value === null) localStorage.removeItem(`kontext.${key}`);
    else localStorage.setItem(`kontext.${key}`, JSON.stringify(value));
  } catch {
    // private windows and full disks: the page works without storage
  }
}
