// What a saga is about, for search: which fields of its input and context hold the name and the id of its subject.
import type { Sql, SqlFragment } from '../platform/db.ts';
import type { SagaFacts, SagaWords } from './words.ts';

/** Names of fields, looked for in a saga's context, and else in its input. */
export type SubjectFields = Readonly<{ names: readonly string[]; ids: readonly string[] }>;

type Described = Readonly<Record<string, Readonly<{ words?: Partial<SagaWords>; secrets?: readonly string[] }>>>;

// They stand in SQL as literals: only so does Postgres find the index of one.
const fieldPattern = /^[A-Za-z0-9_]{1,63}$/;

/**
 * The fields that the subjects of these sagas are taken from. Each `subject` is asked about a saga in which every field holds
 * its own name: what it answers is the field's name, where it takes a field as it stands. A subject that is made of more than
 * one field is not searched for.
 */
export function subjectFieldsOf(definitions: Described): SubjectFields {
  const fields = { names: new Set<string>(), ids: new Set<string>() };
  for (const { words, secrets = [] } of Object.values(definitions)) {
    const read = new Set<string>();
    const echo = new Proxy({}, { get: (_target, field) => (typeof field === 'string' ? (read.add(field), field) : undefined) });
    const subject = askSubject(words, { input: echo, context: echo, error: null });
    const isField = (text: string | null | undefined): text is string => typeof text === 'string' && read.has(text) && fieldPattern.test(text) && !secrets.includes(text);
    if (isField(subject?.name)) fields.names.add(subject.name);
    if (isField(subject?.id)) fields.ids.add(subject.id);
  }
  return { names: [...fields.names], ids: [...fields.ids] };
}

/** SQL for a field of a row of `arcadia.sagas`, as text: of its context, else of its input. */
export function fieldSql(sql: Sql, field: string): SqlFragment {
  if (!fieldPattern.test(field)) throw new TypeError(`expected the name of a field: letters, digits and _; found ${JSON.stringify(field)}`);
  return sql`coalesce(context->>${sql.unsafe(`'${field}'`)}, input->>${sql.unsafe(`'${field}'`)})`;
}

function askSubject(words: Partial<SagaWords> | undefined, facts: SagaFacts) {
  try {
    return words?.subject?.(facts);
  } catch {
    // It was written for inputs of another shape.
    return undefined;
  }
}
