// What this browser remembers between visits: language, theme, prompts, drafts. The pictures live on the server.

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
    // private windows and full disks: the page works without a memory
  }
}
