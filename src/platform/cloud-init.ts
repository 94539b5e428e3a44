// User data as cloud-init reads it, with a report of how it ran: the caller's own, and beside it a script that waits for cloud-init to end and calls
// a URL. Several parts are one MIME message.
// Source: https://cloudinit.readthedocs.io/en/latest/explanation/format.html

/** The longest URL that fits. */
export const MAX_CALLBACK_URL_LENGTH = 700;

const BOUNDARY = '==arcadia-cloud-4f0c9b52d1==';
const LINE_LENGTH = 76;
// Three bytes become four characters.
const BYTES_A_LINE = (LINE_LENGTH / 4) * 3;

/** The type of a part of user data, by how it begins; null: it is of no kind that can have another part beside it. */
export function partTypeOf(userData: string): 'text/cloud-config' | 'text/x-shellscript' | null {
  if (userData.startsWith('#!')) return 'text/x-shellscript';
  return /^#cloud-config\s/.test(`${userData}\n`) ? 'text/cloud-config' : null;
}

/**
 * Makes user data that calls the URL once the caller's own has run.
 *
 * @param userData null: there is none; then the report tells that cloud-init has come to its end
 * @throws {TypeError} for user data of another kind: the input's schema refuses that
 */
export function withCallback(userData: string | null, url: string): string {
  const script = reportScript(url);
  if (userData === null || userData === '') return script;
  const type = partTypeOf(userData);
  if (type === null) throw new TypeError('user_data is neither a cloud-config nor a script');
  return [
    'MIME-Version: 1.0',
    `Content-Type: multipart/mixed; boundary="${BOUNDARY}"`,
    '',
    ...part(type, 'user-data', userData),
    // Scripts run in the order of the parts.
    ...part('text/x-shellscript', 'arcadia-ready', script),
    `--${BOUNDARY}--`,
    '',
  ].join('\n');
}

function part(type: string, name: string, text: string): string[] {
  // cloud-init reads other characters as they are meant in base64 alone.
  const isPlain = /^[\t\n\r\x20-\x7e]*$/.test(text) && !text.includes(`--${BOUNDARY}`);
  const body = isPlain ? [text] : base64Lines(text);
  return [
    `--${BOUNDARY}`,
    `Content-Type: ${type}; charset="utf-8"`,
    'MIME-Version: 1.0',
    `Content-Transfer-Encoding: ${isPlain ? '7bit' : 'base64'}`,
    `Content-Disposition: attachment; filename="${name}"`,
    '',
    ...body,
  ];
}

function base64Lines(text: string): string[] {
  const bytes = Buffer.from(text);
  return Array.from({ length: Math.ceil(bytes.length / BYTES_A_LINE) }, (_, index) => bytes.subarray(index * BYTES_A_LINE, (index + 1) * BYTES_A_LINE).toString('base64'));
}

/**
 * The script. It goes to the background at once: cloud-init only ends after it. Only a status of 2xx or 410 is final. After
 * anything else it tries again for some minutes: the network may not be up, and a proxy may answer 404, 408 or 429 while `web`
 * restarts. cloud-init's status 1 is a failure; 2 tells of warnings.
 */
function reportScript(url: string): string {
  return `#!/bin/sh
# Added by arcadia-cloud: reports how cloud-init ended.
if [ "$1" != report ]; then
  nohup sh "$0" report </dev/null >/dev/null 2>&1 &
  exit 0
fi
url='${url}'
cloud-init status --wait >/dev/null 2>&1
code=$?
body=$(mktemp)
if [ "$code" = 1 ]; then
  { echo failed; tail -n 20 /var/log/cloud-init-output.log | tail -c 3000; } >"$body"
else
  echo ok >"$body"
fi
tries=0
while [ "$tries" -lt 60 ]; do
  if command -v curl >/dev/null 2>&1; then
    status=$(curl -sS -o /dev/null -m 20 -w '%{http_code}' -H 'content-type: text/plain' --data-binary "@$body" "$url" 2>/dev/null)
  else
    answer=$(wget -q -S -t 1 -T 20 -O /dev/null --header 'content-type: text/plain' --post-file "$body" "$url" 2>&1) && status=200 || status=000
    case "$answer" in *HTTP/?.?' 410'*) status=410 ;; esac
  fi
  case "$status" in 2??|410) break ;; esac
  tries=$((tries + 1))
  sleep 5
done
rm -f "$body"
`;
}
