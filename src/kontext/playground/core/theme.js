// Color theme: light, dark, or the system's.
import { keep, recall } from './memory.js';

const THEMES = ['auto', 'light', 'dark'];

export const theme = () => recall('theme', 'auto');

export function applyTheme() {
  document.documentElement.dataset.theme = theme();
}

export function nextTheme() {
  keep('theme', THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length]);
  applyTheme();
}
