// Fills the OpenAPI document with an example for each body and each parameter, made from its schema: `examples` of the schema where
// it has some, else a value that the schema allows.

type Node = Readonly<Record<string, unknown>>;

const UUID = '7f9c24e8-3b12-4fef-91e0-56a2d5a1c1b7';
// Deep enough for every answer; ends a schema that refers to itself.
const MAX_DEPTH = 8;

const texts: Readonly<Record<string, string>> = { uuid: UUID, 'date-time': '2026-01-31T12:00:00.000Z', date: '2026-01-31', uri: 'https://example.com', email: 'ada@example.com' };

/** Adds the examples to the operations of a document, in place. */
export function fillExamples(paths: unknown, components: ReadonlyMap<string, object>): void {
  for (const operation of Object.values(nodeOf(paths)).flatMap((item) => Object.values(nodeOf(item)))) {
    const { requestBody, responses, parameters } = nodeOf(operation);
    fillMedia(requestBody, { components, isAnswer: false });
    for (const answer of Object.values(nodeOf(responses))) fillMedia(answer, { components, isAnswer: true });
    for (const parameter of Array.isArray(parameters) ? parameters : []) {
      const example = exampleOf(nodeOf(parameter)['schema'], { components, isAnswer: false });
      if (nodeOf(parameter)['example'] === undefined && (nodeOf(parameter)['required'] === true || hasOwnExample(nodeOf(parameter)['schema']))) Object.assign(nodeOf(parameter), { example });
    }
  }
}

/** `isAnswer`: shows every field; else only the required ones, and those with an example of their own. */
type Making = Readonly<{ components: ReadonlyMap<string, object>; isAnswer: boolean }>;

function fillMedia(holder: unknown, making: Making): void {
  for (const [type, media] of Object.entries(nodeOf(nodeOf(holder)['content']))) {
    const { schema, example, examples } = nodeOf(media);
    if (example === undefined && examples === undefined && type.endsWith('json')) Object.assign(nodeOf(media), { example: exampleOf(schema, making) });
  }
}

function exampleOf(schema: unknown, making: Making, depth = 0): unknown {
  const node = resolve(schema, making.components);
  const { examples, example, const: fixed, enum: choices, default: fallback, anyOf, oneOf, allOf } = node;
  if (Array.isArray(examples) && examples.length > 0) return examples[0] as unknown;
  if (example !== undefined) return example;
  if (fixed !== undefined) return fixed;
  if (Array.isArray(choices)) return choices[0] as unknown;
  if (fallback !== undefined && !making.isAnswer) return fallback;
  if (depth > MAX_DEPTH) return null;
  const alternatives = [anyOf, oneOf].find((list) => Array.isArray(list));
  if (Array.isArray(alternatives) && node['properties'] === undefined) return exampleOf(alternatives.find((one) => nodeOf(one)['type'] !== 'null'), making, depth + 1);
  if (Array.isArray(allOf)) return Object.assign({}, ...allOf.map((one) => nodeOf(exampleOf(one, making, depth + 1)))) as unknown;
  switch (typeOf(node)) {
    case 'object':
      return exampleOfObject(node, making, depth);
    case 'array':
      return depth >= MAX_DEPTH ? [] : [exampleOf(node['items'], making, depth + 1)];
    case 'string':
      return texts[String(node['format'])] ?? 'text';
    case 'integer':
    case 'number':
      return Math.max(1, typeof node['minimum'] === 'number' ? node['minimum'] : 1);
    case 'boolean':
      return true;
    case 'null':
      return null;
    default:
      return {};
  }
}

function exampleOfObject(node: Node, making: Making, depth: number): Node {
  const required: readonly unknown[] = Array.isArray(node['required']) ? node['required'] : [];
  const shown = Object.entries(nodeOf(node['properties'])).filter(([name, one]) => making.isAnswer || required.includes(name) || hasOwnExample(one));
  return Object.fromEntries(shown.map(([name, one]) => [name, exampleOf(one, making, depth + 1)]));
}

function hasOwnExample(schema: unknown): boolean {
  const { examples, example } = nodeOf(schema);
  return example !== undefined || (Array.isArray(examples) && examples.length > 0);
}

function resolve(schema: unknown, components: ReadonlyMap<string, object>): Node {
  const { $ref } = nodeOf(schema);
  return typeof $ref === 'string' ? nodeOf(components.get($ref.slice($ref.lastIndexOf('/') + 1))) : nodeOf(schema);
}

function typeOf({ type, properties }: Node): unknown {
  if (Array.isArray(type)) return type.find((one) => one !== 'null');
  return type ?? (properties === undefined ? undefined : 'object');
}

function nodeOf(value: unknown): Node {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Node) : {}; // oxlint-disable-line typescript/no-unsafe-type-assertion -- any object is one by string keys
}
