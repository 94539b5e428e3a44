// Finds the input and context fields that hold the name and the id of a saga's subject, for search.
import type { Sql, SqlFragment } from '../platform/db.ts';
import type { SagaFacts, SagaWords } from './saga-words.ts';

/** Names of fields, looked up in a saga's context, else in its input. */
export type SubjectFields = Readonly<{ names: readonly string[]; ids: readonly string[] }>;

/** Without a definition, `name` in the input counts as the subject's name. */
export const plainFields: SubjectFields = { names: [], ids: [] };

type Described = Readonly<Record<string, Readonly<{ words?: Partial<SagaWords>; secrets?: readonly string[] }>>>;

// Field names appear in SQL as literals, because only then does Postgres find an index on the field.
const fieldPattern = /^[A-Za-z0-9_]{1,63}$/;

/**
 * Finds the fields that these sagas' subjects use. It calls each `subject` for a saga in which every field contains its
 * own name. If the subject uses a field unchanged, the result is the field's name. A subject that combines several fields
 * is not searchable.
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

/** SQL for a field of a row of `arcadia.sagas`, as text: from its context, else from its input. */
export function fieldSql(sql: Sql, field: string): SqlFragment {
  if (!fieldPattern.test(field)) throw new TypeError(`expected the name of a field: letters, digits and _; found ${JSON.stringify(field)}`);
  return sql`coalesce(context->>${sql.unsafe(`'${field}'`)}, input->>${sql.unsafe(`'${field}'`)})`;
}

function askSubject(words: Partial<SagaWords> | undefined, facts: SagaFacts) {
  try {
    return words?.subject?.(facts);
  } catch {
    // The function expects inputs of another shape.
    return undefined;
  }
}
