// The page's texts, from `locales/*.json`; the language is the browser's until the user chooses one.
import { recall } from './memory.js';

export const LANGUAGES = { en: 'English', zh: '中文' };
let words = {};
export let language = 'en';

export async function loadWords(chosen = recall('language', null)) {
  const guess = (navigator.language ?? 'en').slice(0, 2);
  language = [chosen, guess, 'en'].find((code) => code in LANGUAGES);
  words = await (await fetch(new URL(`../locales/${language}.json`, import.meta.url))).json();
  document.documentElement.lang = language;
  document.title = t('title');
}

/** The text of a key with `{name}` filled in; for `n` = 1 the key with the suffix `_one` is used if it exists. */
export function t(key, values = {}) {
  const text = (values.n === 1 && words[`${key}_one`]) || words[key] || key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

export const has = (key) => key in words;

/** A duration for display. */
export function duration(seconds) {
  return seconds < 1 ? t('milliseconds', { n: Math.round(seconds * 1000) }) : t('seconds', { n: seconds.toFixed(1) });
}

/** An estimated remaining time for display. */
export function roughly(seconds) {
  return seconds < 90 ? t('seconds', { n: Math.round(seconds) }) : t('minutes', { n: Math.round(seconds / 60) });
}

export function percent(share) {
  const value = share * 100;
  if (value > 0 && value < 0.1) return '< 0.1 %';
  return `${value > 0 && value < 10 ? value.toFixed(1) : Math.round(value)} %`;
}
