// The request that the page would send, as runnable code: curl, and Python with the standard library only.

/** Quote text as one POSIX shell word. */
export const quoted = (text) => `'${String(text).replaceAll("'", "'\\''")}'`;

/** Plain data as a Python literal. */
export function literal(value) {
  if (value === null || value === undefined) return 'None';
  if (value === true) return 'True';
  if (value === false) return 'False';
  if (Array.isArray(value)) return `[${value.map(literal).join(', ')}]`;
  if (typeof value === 'object') {
    return `{${Object.entries(value)
      .map(([key, item]) => `${literal(key)}: ${literal(item)}`)
      .join(', ')}}`;
  }
  return JSON.stringify(value);
}

/**
 * @param {{root: string, session: string, body: object, key: boolean}} call `root`: address of the server with a
 *   trailing slash; `key`: whether the server requires an API key
 * @returns {string}
 */
export function curl({ root, session, body, key }) {
  const lines = [`curl --fail-with-body ${quoted(`${root}api/sessions/${session}/edits`)}`, `-H 'content-type: application/json'`];
  if (key) lines.push(`-H "x-key: $KONTEXT_KEY"`);
  lines.push(`-d ${quoted(JSON.stringify(body))}`);
  return lines.join(' \\\n  ');
}

/** The same in Python: submits the edit, waits for it and saves each picture. */
export function python({ root, session, body, key }) {
  const fields = Object.entries(body).map(([name, value]) => `    ${literal(name)}: ${literal(value)},`);
  return `import json
${key ? 'import os\n' : ''}import time
import urllib.request

SERVER = ${literal(root)}
SESSION = ${literal(session)}
HEADERS = {"content-type": "application/json"${key ? ', "x-key": os.environ["KONTEXT_KEY"]' : ''}}


def call(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(SERVER + path, data, HEADERS)) as answer:
        return answer.read()


edit = {
${fields.join('\n')}
}
for job in json.loads(call(f"api/sessions/{SESSION}/edits", edit))["jobs"]:
    while job["state"] in ("queued", "running"):
        time.sleep(0.2)
        job = json.loads(call(f"api/jobs/{job['id']}"))
    if job["state"] != "done":
        raise SystemExit(f"{job['state']}: {job['error']}")
    with open(f"{job['id']}.png", "wb") as file:
        file.write(call(f"api/sessions/{SESSION}/turns/{job['id']}/picture"))
    print(file.name)
`;
}
