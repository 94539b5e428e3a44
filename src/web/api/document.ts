// Builds the OpenAPI document from the routes' schemas. A generator must be able to build a client from it: every
// reference resolves, and schemas that several operations share appear once, under a name.
import type { FastifyDynamicSwaggerOptions } from '@fastify/swagger';
import { z } from 'zod';
import { problemSchema } from '../problems.ts';
import { fillExamples } from './examples.ts';
import { driftAnswer, orphanAnswer, resourceAnswer } from './inventory-shapes.ts';
import { eventAnswer, sagaAnswer } from './saga-shapes.ts';

type JsonSchema = Record<string, unknown>;

/** The functions for `@fastify/swagger`: it calls the first for each route, and the second once at the end with all of them. */
type Description = Required<Pick<FastifyDynamicSwaggerOptions, 'transform' | 'transformObject'>>;

type Named = readonly (readonly [schema: z.ZodType, name: string])[];
const ofSagas: Named = [[sagaAnswer, 'Saga'], [eventAnswer, 'Event'], [problemSchema, 'Problem']];
// An app without droplets has none of these routes.
const ofDroplets: Named = [[resourceAnswer, 'Resource'], [driftAnswer, 'Drift'], [orphanAnswer, 'Orphan']];
const nameOf: ReadonlyMap<unknown, string> = new Map([...ofSagas, ...ofDroplets]);

const requestParts = ['headers', 'querystring', 'body', 'params'] as const;

/**
 * Creates the functions that describe the routes.
 *
 * @param options.hasDroplets false: omits the droplet filter from the document, although the routes still accept it
 */
export function describeRoutes({ hasDroplets }: { hasDroplets: boolean }): Description {
  const components = new Map<string, JsonSchema>();

  for (const [schema, name] of hasDroplets ? [...ofSagas, ...ofDroplets] : ofSagas) components.set(name, hoist(toJsonSchema(schema, 'output'), name, components));

  const convert = (schema: z.ZodType, io: 'input' | 'output', owner: string): JsonSchema => {
    const name = nameOf.get(schema);
    return name === undefined ? hoist(toJsonSchema(schema, io), owner, components) : { $ref: `${REFERENCE}${name}` };
  };

  return {
    transform: ({ schema, url }) => {
      const given = objectOf(schema);
      if (schema === undefined || given['hide'] === true) return { schema: { hide: true }, url };
      const owner = textOf(given['operationId'], url);
      const shown: JsonSchema = { ...given };
      for (const part of requestParts) {
        const one = given[part];
        if (one instanceof z.ZodType) shown[part] = convert(one, 'input', `${owner}_${part}`);
      }
      if (!hasDroplets) dropDropletFilter(shown);
      shown['response'] = Object.fromEntries(Object.entries(objectOf(given['response'])).map(([status, answer]) => [status, toResponse(answer, (one) => convert(one, 'output', `${owner}_${status}`))]));
      return { schema: shown, url };
    },
    transformObject: (document) => {
      const openapiObject = 'openapiObject' in document ? document.openapiObject : {};
      const schemas = Object.fromEntries([...components].toSorted(([one], [other]) => (one < other ? -1 : 1)));
      openBodies(openapiObject.paths);
      fillExamples(openapiObject.paths, components);
      return Object.assign(openapiObject, { components: { ...openapiObject.components, schemas } });
    },
  };
}

/** Converts a route's response: a schema, or media types with one schema each. */
function toResponse(answer: unknown, convert: (schema: z.ZodType) => JsonSchema): JsonSchema {
  if (answer instanceof z.ZodType) return convert(answer);
  const { content, ...rest } = objectOf(answer);
  if (content === undefined) return rest;
  const types = Object.entries(objectOf(content)).map(([type, media]) => {
    const { schema } = objectOf(media);
    return [type, { schema: schema instanceof z.ZodType ? convert(schema) : schema }];
  });
  return { ...rest, content: Object.fromEntries(types) };
}

const REFERENCE = '#/components/schemas/';

function toJsonSchema(schema: z.ZodType, io: 'input' | 'output'): JsonSchema {
  const { $schema: _dialect, ...made } = z.toJSONSchema(schema, {
    target: 'draft-2020-12',
    io,
    unrepresentable: 'any',
    override: ({ zodSchema, jsonSchema, path }) => {
      // zod generates these ids, for the names in $defs.
      delete jsonSchema.id;
      const name = nameOf.get(zodSchema);
      if (name === undefined || path.length === 0) return;
      for (const key of Object.keys(jsonSchema)) Reflect.deleteProperty(jsonSchema, key);
      jsonSchema.$ref = `${REFERENCE}${name}`;
    },
  });
  return made;
}

/**
 * Moves the definitions of a recursive schema to the document's components: a reference in an OpenAPI document is
 * relative to the document's root.
 */
function hoist(schema: JsonSchema, owner: string, components: Map<string, JsonSchema>): JsonSchema {
  const { $defs, ...root } = schema;
  const name = owner.replaceAll(/[^\w.-]+/g, '_');
  const placeOf = (definition: string) => `${name}_${definition.replaceAll(/[^\w.-]+/g, '_').replace(/^_+/, '')}`;
  const refersToRoot = { current: false };
  const redirect = (node: JsonSchema): void => {
    const { $ref } = node;
    if ($ref === '#') {
      refersToRoot.current = true;
      node['$ref'] = `${REFERENCE}${name}`;
    } else if (typeof $ref === 'string' && $ref.startsWith('#/$defs/')) node['$ref'] = `${REFERENCE}${placeOf(decodeURIComponent($ref.slice('#/$defs/'.length)))}`;
  };
  walk(root, redirect);
  for (const [definition, one] of Object.entries(objectOf($defs))) {
    const moved = objectOf(one);
    walk(moved, redirect);
    components.set(placeOf(definition), moved);
  }
  if (!refersToRoot.current) return root;
  components.set(name, root);
  return { $ref: `${REFERENCE}${name}` };
}

function walk(value: unknown, visit: (node: JsonSchema) => void): void {
  if (Array.isArray(value)) for (const one of value) walk(one, visit);
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return;
  const node = objectOf(value);
  visit(node);
  for (const one of Object.values(node)) walk(one, visit);
}

/** Removes it from the filter of a list and of a bulk request. */
function dropDropletFilter(schema: JsonSchema): void {
  const { filter } = objectOf(objectOf(schema['body'])['properties']);
  for (const one of [schema['querystring'], filter]) delete objectOf(objectOf(one)['properties'])['droplet_id'];
}

/** Fastify's plugin marks every body as required. A nullable body may be omitted. */
function openBodies(paths: unknown): void {
  for (const item of Object.values(objectOf(paths))) {
    for (const operation of Object.values(objectOf(item))) {
      const body = objectOf(objectOf(operation)['requestBody']);
      const { anyOf } = objectOf(objectOf(objectOf(body['content'])['application/json'])['schema']);
      if (Array.isArray(anyOf) && anyOf.some((one) => objectOf(one)['type'] === 'null')) body['required'] = false;
    }
  }
}

/** Returns the object itself, so that it can be changed; an empty one for anything else. */
function objectOf(value: unknown): JsonSchema {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as JsonSchema) : {}; // oxlint-disable-line typescript/no-unsafe-type-assertion -- any object is one by string keys
}

function textOf(value: unknown, fallback: string): string {
  return typeof value === 'string' ? value : fallback;
}
