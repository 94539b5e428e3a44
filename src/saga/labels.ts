// Labels: what a saga's jobs and traces show besides what the engine knows. The saga's definition provides them. They are
// for people and decide nothing.
import type { Saga } from './saga.ts';

/** Names in camelCase. Null and undefined values are omitted. */
export type Labels = Readonly<Record<string, string | number | boolean | null | undefined>>;

/** The input for labels. */
type Labelled = Pick<Saga, 'name' | 'input' | 'context'>;

/** Returns the labels of a saga; none if its definition is unknown. */
export type LabelsOf = (saga: Labelled) => Labels;

type Definitions = Readonly<Record<string, Readonly<{ labels?: (saga: Pick<Saga, 'input' | 'context'>) => Labels }>>>;

const MAX_LENGTH = 255;

/** No labels. */
export const noLabels: LabelsOf = () => ({});

/**
 * Creates a function that returns the labels from these definitions. Labels decide nothing, so a definition that throws
 * yields none.
 */
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

/** Converts labels to span attributes: `serverId` becomes `arcadia.server.id`. */
export function attributesOf(labels: Labels): Record<string, string | number | boolean> {
  return Object.fromEntries(Object.entries(labels).flatMap(([label, value]) => (isLabel(value) ? [[`arcadia.${label.replaceAll(/[A-Z]/g, (letter) => `.${letter.toLowerCase()}`)}`, value]] : [])));
}

function isLabel(value: unknown): value is string | number | boolean {
  return typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean';
}
