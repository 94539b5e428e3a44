// Labels: what the jobs and the traces of a saga tell of it, beside what the engine knows. They come from its definition, are
// for people to read, and decide nothing.
import type { Saga } from './saga.ts';

/** Names in camelCase. A value that is null or undefined is left out. */
export type Labels = Readonly<Record<string, string | number | boolean | null | undefined>>;

/** What labels are made of. */
type Labelled = Pick<Saga, 'name' | 'input' | 'context'>;

/** Gives the labels of a saga; none where its definition is not known. */
export type LabelsOf = (saga: Labelled) => Labels;

type Definitions = Readonly<Record<string, Readonly<{ labels?: (saga: Pick<Saga, 'input' | 'context'>) => Labels }>>>;

const MAX_LENGTH = 255;

/** No labels. */
export const noLabels: LabelsOf = () => ({});

/** The labels that definitions give. Labels decide nothing, so a definition that throws gives none. */
export function labelsOf(definitions: Definitions): LabelsOf {
  return ({ name, input, context }) => {
    const { labels } = (Object.hasOwn(definitions, name) ? definitions[name] : undefined) ?? {};
    if (labels === undefined) return {};
    try {
      return Object.fromEntries(Object.entries(labels({ input, context })).flatMap(([label, value]) => (isLabel(value) ? [[label, typeof value === 'string' ? value.slice(0, MAX_LENGTH) : value]] : [])));
    } catch {
      return {};
    }
  };
}

/** The labels as attributes of a span: `serverId` is `arcadia.server.id`. */
export function attributesOf(labels: Labels): Record<string, string | number | boolean> {
  return Object.fromEntries(Object.entries(labels).flatMap(([label, value]) => (isLabel(value) ? [[`arcadia.${label.replaceAll(/[A-Z]/g, (letter) => `.${letter.toLowerCase()}`)}`, value]] : [])));
}

function isLabel(value: unknown): value is string | number | boolean {
  return typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean';
}
