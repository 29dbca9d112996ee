// Prompt text utilities: referenced pictures, templates with a placeholder, and the prompt history.

/** Numbers of the pictures that a prompt mentions: "image 2", "picture 2", "图2", "图片 2". */
export function namedPictures(prompt) {
  const found = prompt.matchAll(/(?:\b(?:image|picture|photo|pic)\s*#?\s*|图片?\s*|第\s*)([1-4])(?!\d)/gi);
  return [...new Set([...found].map((match) => Number(match[1])))];
}

/** Whether the prompt mentions the box, so that the model must see it: "the thing in the red box", "红框里的东西". */
export const namesBox = (prompt) => /\bred (?:box|frame|rectangle)\b|红色?方?框/i.test(prompt);

/** "Make it [blue]" -> the text without brackets and the range to select, or the whole text. */
export function fillIn(template) {
  const start = template.indexOf('[');
  const end = template.indexOf(']');
  if (start < 0 || end < start) return { text: template, start: template.length, end: template.length };
  const text = template.slice(0, start) + template.slice(start + 1, end) + template.slice(end + 1);
  return { text, start, end: end - 1 };
}

/** The history with `prompt` first, without duplicates, at most `limit` entries. */
export function remember(history, prompt, limit = 100) {
  const text = prompt.trim();
  return text ? [text, ...history.filter((earlier) => earlier !== text)].slice(0, limit) : history;
}

/** A file name from a prompt: letters and digits of any script, at most 48 characters. */
export function fileName(text, fallback = 'picture') {
  const words = text
    .normalize('NFKC')
    .replace(/[^\p{L}\p{N}]+/gu, '-')
    .replace(/^-+|-+$/g, '');
  return words.slice(0, 48).replace(/-+$/, '') || fallback;
}

/** Append a phrase to a prompt unless it is already there. */
export function addPhrase(prompt, phrase) {
  if (prompt.includes(phrase)) return prompt;
  return prompt.trim() ? `${prompt.trimEnd()} ${phrase}` : phrase;
}

/** Whether a prompt asks for a change to an existing picture rather than describing a new one. */
export const looksLikeEdit = (prompt) => EDIT_WORDS.test(prompt.trim());
const EDIT_WORDS =
  /^(?:please\s+)?(?:make (?:it|him|her|them|the|his|its|their)|change|turn (?:it|him|her|the)|remove|delete|replace|add|put|give (?:him|her|them|it|the)|erase|restyle|recolou?r|dye)\b|^(?:请)?(?:把|将|给|去掉|删除|移除|换成|改成|变成|添加|加上|戴上|摘掉|替换)/i;

/** Warnings of an edit to show: the photograph warning only for the first edit, and without measurements. */
export function warningsFor(warnings = [], first = true) {
  const isPhotograph = (text) => /looks like a photograph/i.test(text);
  return warnings
    .filter((text) => first || !isPhotograph(text))
    .map((text) => (isPhotograph(text) ? text.replace(/\s*\([^()]*\bdB\)/, '') : text));
}

/** Join message parts as sentences: each is capitalized and ends with punctuation. */
export function sentences(...parts) {
  const closed = (text) => (/[\p{P}]$/u.test(text) ? text : `${text}.`);
  return parts
    .map((part) => part?.trim())
    .filter(Boolean)
    .map((part) => closed(part[0].toUpperCase() + part.slice(1)))
    .join(' ');
}

/** Fraction of the model's limit from which the tokens of a prompt are counted and shown. */
export const NEAR = 0.5;

/** Whether a prompt may have this many tokens: each has at least one byte, apart from an initial and an end mark. */
export const mayReach = (prompt, tokens) => new TextEncoder().encode(prompt).length + 2 >= tokens;

/** {count, limit} of the prompt in the field if it is known and near the limit, else null. */
export function tokensHere({ tokens, draft, capabilities }) {
  const limit = capabilities?.limits.prompt_tokens;
  if (!limit || tokens?.prompt !== draft.prompt || tokens.count < NEAR * limit) return null;
  return { count: tokens.count, limit };
}
