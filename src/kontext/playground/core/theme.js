// Light, dark, or as the system says.
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
