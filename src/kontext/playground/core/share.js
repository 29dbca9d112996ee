// The page to share: one HTML file with all pictures embedded, without scripts.

const ESCAPES = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };
export const escaped = (text) => String(text).replace(/[&<>"']/g, (mark) => ESCAPES[mark]);

const LOOKS = `
:root { color-scheme: light dark; font: 1rem/1.45 system-ui, sans-serif; }
body { max-width: 60rem; margin: 3rem auto; padding: 0 1rem; background: light-dark(#f3f3f0, #18191c); color: light-dark(#15161a, #f4f4f1); }
ol { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 2rem; padding: 0; list-style: none; }
img { display: block; width: 100%; height: auto; border-radius: 4px; }
figure { margin: 0; }
figcaption { margin-top: .6rem; font-weight: 600; overflow-wrap: anywhere; unicode-bidi: isolate; }
p { color: light-dark(#575a61, #a9acb3); }`;

/**
 * @param {{title: string, note: string, language: string, steps: {picture: string, size: number[], words: string}[]}} page
 *   `picture`: a data URL
 * @returns {string} HTML
 */
export function sharedPage({ title, note, language, steps }) {
  const figures = steps.map(
    ({ picture, size, words }) => `<li><figure>
<img src="${escaped(picture)}" width="${Number(size[0])}" height="${Number(size[1])}" alt="">
<figcaption dir="auto">${escaped(words)}</figcaption></figure></li>`,
  );
  return `<!doctype html>
<html lang="${escaped(language)}">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escaped(title)}</title>
<style>${LOOKS}
</style>
<main>
<h1 dir="auto">${escaped(title)}</h1>
<ol>
${figures.join('\n')}
</ol>
<p>${escaped(note)}</p>
</main>
</html>
`;
}
