// The start form and its preview. They work without a script.
import { formatDuration } from '../../platform/duration.ts';
import type { Html } from '../html.ts';
import { exactText, html } from '../html.ts';
import type { PlansPort } from '../ports.ts';
import { hidden } from './parts.ts';
import type { FieldErrors, Fields } from './start-fields.ts';
import { userDataOf, valueOf, valuesOf } from './start-fields.ts';

type Lists = Awaited<ReturnType<PlansPort['lists']>>;
type Plan = Awaited<ReturnType<PlansPort['plan']>>;
type Options = Lists['regions'];

/** What a form holds. `key`: makes one saga of it, however often it is sent. */
export type StartForm = Readonly<{ fields: Fields; errors: FieldErrors; key: string; lists: Lists }>;

const labels: Readonly<Record<string, string>> = {
  name: 'Name', region: 'Region', size: 'Size', image: 'Image', ssh_keys: 'SSH keys', tags: 'Tags', project: 'Project', user_data: 'User data', lease: 'Lease', lease_max: 'Longest lease',
  ready: 'Ready when', ready_port: 'Port', ready_path: 'Path', ready_within: 'Ready within', ipv6: 'IPv6', monitoring: 'Monitoring', backups: 'Backups', protected: 'Protected',
};

const checkLabels: Readonly<Record<string, string>> = { account: 'Account', room: 'Room', vpc_uuid: 'VPC', volumes: 'Volumes' };

/** The form, with the input kept and errors beside the fields. */
export function renderForm(form: StartForm): Html {
  const { fields, errors, key, lists } = form;
  const hasMore = ['project', 'user_data', 'lease', 'lease_max', 'ready', 'ready_within', 'ipv6', 'monitoring', 'backups', 'protected'].some((name) => (fields[name] ?? '') !== '' || errors.has(name) || errors.has('ready_port') || errors.has('ready_path'));
  return html`<h1>New droplet</h1>
${errors.size === 0 ? null : summaryOf(errors)}
${lists.why === null ? null : html`<p class="notice">Not every list of DigitalOcean could be read: ${lists.why}. Type slugs and names where a list is missing.</p>`}
<form method="post" action="/start" class="start">${hidden([['key', key]])}
${textField(form, 'name', { hint: 'Becomes the host name: letters, digits, dots and dashes.', max: 255, isRequired: true })}
${choice(form, 'region', lists.regions, 'such as fra1')}
${choice(form, 'size', lists.sizes, 'such as s-1vcpu-1gb')}
${choice(form, 'image', lists.images, 'such as debian-12-x64, or the id of an image')}
${sshKeys(form)}
${textField(form, 'tags', { hint: 'Separated by commas.' })}
<details${hasMore ? html` open` : null}><summary>User data, lease, readiness and more</summary>
<div class="field"><label for="user_data">User data</label>${errorOf(errors, 'user_data')}<textarea id="user_data" name="user_data" rows="6" spellcheck="false" autocomplete="off"${described(errors, 'user_data', true)}>
${exactText(userDataOf(fields))}</textarea><p class="hint" id="user_data-hint">A script or a cloud-config, at most 64 KiB. It is secret: no page and no log shows it.</p></div>
${textField(form, 'lease', { hint: 'Such as 2h or 7d: the droplet is destroyed after this time, unless somebody renews the lease. Empty: the default of the fleet.' })}
${textField(form, 'lease_max', { hint: 'No renewal goes beyond this time, such as 30d.' })}
<div class="field"><label for="ready">Ready when</label>${errorOf(errors, 'ready')}<select id="ready" name="ready"${described(errors, 'ready', false)}>${[['', 'it is active'], ['tcp', 'a TCP port takes connections'], ['http', 'a path answers over HTTP'], ['callback', 'it reports that its user data ran']].map(([value = '', text]) => html`<option value="${value}"${valueOf(fields, 'ready') === value ? html` selected` : null}>${text}</option>`)}</select></div>
${textField(form, 'ready_port', { hint: 'For TCP and HTTP, such as 22.' })}
${textField(form, 'ready_path', { hint: 'For HTTP, such as /healthz.' })}
${textField(form, 'ready_within', { hint: 'Such as 10m: rolled back if it is not ready in this time.' })}
${lists.projects === null ? textField(form, 'project', { hint: 'Name or id. Empty: the default project.' }) : choice(form, 'project', lists.projects, '', 'the default project')}
<fieldset class="field"><legend>Options</legend>${checkbox(fields, 'ipv6', 'IPv6 address')}${checkbox(fields, 'monitoring', 'Monitoring agent')}${checkbox(fields, 'backups', 'Backups (cost extra)')}${checkbox(fields, 'protected', 'Protected: not destroyed until somebody lifts the protection')}</fieldset>
</details>
<div class="actions"><button class="primary" type="submit">Preview…</button></div>
${lists.ageSeconds === null || lists.ageSeconds < 2 ? null : html`<p class="hint">Regions, sizes and images of DigitalOcean as of ${formatDuration(lists.ageSeconds * 1_000)} ago.</p>`}
</form>`;
}

/** What would be created, with its price and the checks; the button that starts it. */
export function renderPreview({ fields, key, lists }: Omit<StartForm, 'errors'>, plan: Plan): Html {
  const { checks, price, start, possible } = plan;
  const rows = checks.map(({ name, result, message }) => html`<li class="${result}"><span class="badge ${badges[result]}">${result}</span> <span><b>${checkLabels[name] ?? labels[name] ?? name}</b> ${message}</span></li>`);
  const shown = Object.keys(labels).flatMap((name) => {
    const value = shownValue(fields, name, lists);
    return value === '' ? [] : [html`<div><dt>${labels[name]}</dt><dd>${value}</dd></div>`];
  });
  const kept = Object.entries(fields).filter(([name]) => name !== 'key').flatMap(([name, value]) => [value].flat().map((one): [string, string] => [name, one]));
  return html`<h1>Create ${valueOf(fields, 'name')}?</h1>
<div class="now ${verdicts[possible].tone}"><p><b>${verdicts[possible].text}</b></p><p>${price.message}${possible === 'no' ? null : start.inSeconds === 0 ? ' It starts now.' : ` ${start.message}`}</p></div>
<form method="post" action="/start/confirm" class="confirm">${hidden([['key', key], ...kept])}
<div class="actions"><button type="submit" formaction="/start/edit">Change</button><button class="${possible === 'no' ? 'danger' : 'primary'}" type="submit">${possible === 'no' ? 'Start it anyway' : 'Create droplet'}</button></div></form>
<h2>Checks</h2><ul class="checks">${rows}</ul>
<h2>Input</h2><dl class="facts">${shown}</dl>`;
}

const badges = { ok: 'completed', problem: 'stuck', unknown: 'compensating' } as const;
const verdicts: Readonly<Record<Plan['possible'], { tone: string; text: string }>> = {
  yes: { tone: 'ok', text: 'This is possible now.' },
  no: { tone: 'bad', text: 'DigitalOcean would refuse this now.' },
  unknown: { tone: '', text: 'Not everything could be checked.' },
};

function shownValue(fields: Fields, name: string, lists: Lists): string {
  const nameOf = (options: Options, value: string): string => options?.find((one) => one.value === value)?.text ?? value;
  if (name === 'user_data') return userDataOf(fields) === '' ? '' : `${Buffer.byteLength(userDataOf(fields))} bytes, not shown`;
  if (name === 'ssh_keys') return valuesOf(fields, name).map((value) => nameOf(lists.sshKeys, value)).join(', ');
  const value = valueOf(fields, name);
  const options: Readonly<Record<string, Options>> = { region: lists.regions, size: lists.sizes, image: lists.images, project: lists.projects };
  if (value === 'on') return 'yes';
  return name.startsWith('ready_') && valueOf(fields, 'ready') === '' ? '' : nameOf(options[name] ?? null, value);
}

function summaryOf(errors: FieldErrors): Html {
  const order = Object.keys(labels);
  const lines = [...errors].toSorted(([one], [other]) => order.indexOf(one) - order.indexOf(other)).map(([name, message]) => html`<li>${name === 'form' ? message : html`<a href="#${name}">${labels[name]}</a>: ${message}`}</li>`);
  return html`<div class="now bad" role="alert"><p><b>${errors.size === 1 ? 'One thing to correct' : `${errors.size} things to correct`}</b></p><ul>${lines}</ul></div>`;
}

function errorOf(errors: FieldErrors, name: string): Html | null {
  const message = errors.get(name);
  return message === undefined ? null : html`<p class="error" id="${`${name}-error`}">${message}</p>`;
}

function described(errors: FieldErrors, name: string, hasHint: boolean): Html {
  const ids = [...(errors.has(name) ? [`${name}-error`] : []), ...(hasHint ? [`${name}-hint`] : [])];
  return html`${errors.has(name) ? html` aria-invalid="true"` : null}${ids.length === 0 ? null : html` aria-describedby="${ids.join(' ')}"`}`;
}

function textField({ fields, errors }: StartForm, name: string, { hint, max = 4_000, isRequired = false }: { hint: string; max?: number; isRequired?: boolean }): Html {
  // The list from which these values were chosen may be unavailable now.
  const value = valuesOf(fields, name).join(', ');
  return html`<div class="field"><label for="${name}">${labels[name]}</label>${errorOf(errors, name)}<input id="${name}" name="${name}" value="${value}" maxlength="${max}" autocomplete="off" spellcheck="false"${isRequired ? html` required` : null}${described(errors, name, true)}><p class="hint" id="${`${name}-hint`}">${hint}</p></div>`;
}

/** A list to choose from; a text field where the list could not be read. A value that the list lacks is kept. */
function choice(form: StartForm, name: string, options: Options, hint: string, none = ''): Html {
  if (options === null) return textField(form, name, { hint: `The slug, ${hint}.`, isRequired: true });
  const { fields, errors } = form;
  const chosen = valueOf(fields, name);
  const all = chosen === '' || options.some(({ value }) => value === chosen) ? options : [{ value: chosen, text: chosen, group: '' }, ...options];
  const groups = [...Map.groupBy(all, ({ group }) => group)].map(([group, some]) => {
    const entries = some.map(({ value, text }) => html`<option value="${value}"${value === chosen ? html` selected` : null}>${text}</option>`);
    return group === '' ? html`${entries}` : html`<optgroup label="${group}">${entries}</optgroup>`;
  });
  const first = html`<option value="">${none === '' ? 'Choose…' : none}</option>`;
  return html`<div class="field"><label for="${name}">${labels[name]}</label>${errorOf(errors, name)}<select id="${name}" name="${name}"${none === '' ? html` required` : null}${described(errors, name, false)}>${first}${groups}</select></div>`;
}

function sshKeys(form: StartForm): Html {
  const { fields, errors, lists } = form;
  if (lists.sshKeys === null) return textField(form, 'ssh_keys', { hint: 'Names, ids or fingerprints, separated by commas.' });
  const chosen = valuesOf(fields, 'ssh_keys');
  const known = lists.sshKeys;
  const all = [...known, ...chosen.filter((value) => !known.some((one) => one.value === value)).map((value) => ({ value, text: value }))];
  if (all.length === 0) return html`<div class="field"><p class="label">SSH keys</p>${errorOf(errors, 'ssh_keys')}<p class="hint">The account has none.</p></div>`;
  return html`<fieldset class="field" id="ssh_keys"><legend>SSH keys</legend>${errorOf(errors, 'ssh_keys')}${all.map(({ value, text }) => html`<label class="check"><input type="checkbox" name="ssh_keys" value="${value}"${chosen.includes(value) ? html` checked` : null}> ${text}</label>`)}</fieldset>`;
}

function checkbox(fields: Fields, name: string, text: string): Html {
  return html`<label class="check"><input type="checkbox" name="${name}" value="on"${valueOf(fields, name) === '' ? null : html` checked`}> ${text}</label>`;
}
