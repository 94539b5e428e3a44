// Code samples for an operation of the HTTP API: curl, TypeScript and Python. They need nothing but the language.

export type SampledRequest = Readonly<{
  method: string;
  /** The whole URL, with examples in place of its parameters. */
  url: string;
  /** Beyond the token. */
  headers: Readonly<Record<string, string>>;
  /** JSON; undefined: no body. */
  body: unknown;
  /** Without credentials: the path is the credential. */
  isPublic: boolean;
  /** Answered by a stream of server-sent events. */
  isStream: boolean;
}>;

export type Sample = Readonly<{ language: 'curl' | 'TypeScript' | 'Python'; code: string }>;

/** The samples. The token is read from the variable ARCADIA_TOKEN. */
export function samplesOf(request: SampledRequest): Sample[] {
  return [
    { language: 'curl', code: curlOf(request) },
    { language: 'TypeScript', code: typescriptOf(request) },
    { language: 'Python', code: pythonOf(request) },
  ];
}

function curlOf({ method, url, headers, body, isPublic, isStream }: SampledRequest): string {
  const parts = [
    `curl${isStream ? ' -N' : ''}${method === 'GET' ? '' : ` -X ${method}`} ${shell(url)}`,
    ...(isPublic ? [] : ['-H "Authorization: Bearer $ARCADIA_TOKEN"']),
    ...Object.entries(headers).map(([name, value]) => `-H ${shell(`${name}: ${value}`)}`),
    ...(body === undefined ? [] : [`-H 'Content-Type: application/json'`, `-d ${shell(JSON.stringify(body))}`]),
  ];
  return parts.join(' \\\n  ');
}

function typescriptOf({ method, url, headers, body, isPublic, isStream }: SampledRequest): string {
  const lines = [
    ...(isPublic ? [] : ['    Authorization: `Bearer ${process.env.ARCADIA_TOKEN}`,']),
    ...Object.entries(headers).map(([name, value]) => `    ${JSON.stringify(name)}: ${JSON.stringify(value)},`),
    ...(body === undefined ? [] : [`    'Content-Type': 'application/json',`]),
  ];
  const read = isStream
    ? ['const decoder = new TextDecoder();', 'for await (const chunk of response.body ?? []) console.log(decoder.decode(chunk, { stream: true }));']
    : ['console.log(await response.json());'];
  return [
    `const response = await fetch(${JSON.stringify(url)}, {`,
    ...(method === 'GET' ? [] : [`  method: '${method}',`]),
    ...(lines.length === 0 ? [] : ['  headers: {', ...lines, '  },']),
    ...(body === undefined ? [] : [`  body: JSON.stringify(${indent(JSON.stringify(body, null, 2), '  ')}),`]),
    '});',
    'if (!response.ok) throw new Error(await response.text());',
    ...read,
  ].join('\n');
}

function pythonOf({ method, url, headers, body, isPublic, isStream }: SampledRequest): string {
  const lines = [
    ...(isPublic ? [] : [`        "Authorization": f"Bearer {os.environ['ARCADIA_TOKEN']}",`]),
    ...Object.entries(headers).map(([name, value]) => `        ${JSON.stringify(name)}: ${JSON.stringify(value)},`),
    ...(body === undefined ? [] : ['        "Content-Type": "application/json",']),
  ];
  return [
    'import json',
    ...(isPublic ? [] : ['import os']),
    'import urllib.request',
    '',
    'request = urllib.request.Request(',
    `    ${JSON.stringify(url)},`,
    `    method="${method}",`,
    ...(lines.length === 0 ? [] : ['    headers={', ...lines, '    },']),
    ...(body === undefined ? [] : [`    data=json.dumps(${indent(python(body), '    ')}).encode(),`]),
    ')',
    'with urllib.request.urlopen(request) as response:',
    ...(isStream ? ['    for line in response:', '        print(line.decode(), end="")'] : ['    print(json.load(response))']),
  ].join('\n');
}

/** Quoted for a POSIX shell, if it needs that. */
function shell(text: string): string {
  return /^[\w:/.,@%+=-]+$/.test(text) ? text : `'${text.replaceAll("'", String.raw`'\''`)}'`;
}

/** A value of JSON as a literal of Python. */
function python(value: unknown, depth = 1): string {
  const pad = '    '.repeat(depth);
  const end = '    '.repeat(depth - 1);
  if (value === null || value === undefined) return 'None';
  if (typeof value === 'boolean') return value ? 'True' : 'False';
  if (Array.isArray(value)) return value.length === 0 ? '[]' : `[${value.map((one: unknown) => python(one, depth)).join(', ')}]`;
  if (typeof value !== 'object') return JSON.stringify(value);
  const entries = Object.entries(value);
  return entries.length === 0 ? '{}' : `{\n${entries.map(([key, one]) => `${pad}${JSON.stringify(key)}: ${python(one, depth + 1)},\n`).join('')}${end}}`;
}

function indent(text: string, by: string): string {
  return text.replaceAll('\n', `\n${by}`);
}
