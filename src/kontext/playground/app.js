// Entry point: texts and theme first, then the page, then the server.
import './elements/app.js';
import { boot, followAddress } from './core/sessions.js';
import { loadWords } from './core/text.js';
import { applyTheme } from './core/theme.js';
import { store } from './core/store.js';

applyTheme();
await loadWords();
store.set({ ready: true });
performance.mark('kontext:interactive');
window.addEventListener('hashchange', followAddress);
await Promise.all([import('./elements/deferred.js'), boot()]);
