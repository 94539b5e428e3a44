// The JSON Schemas in docs/schemas: current, and of one mind with the zod schemas that the workers enforce.

import { readFileSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Ajv2020 } from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';
import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { jsonSchemas } from '../../script/json-schemas.ts';
import { provisionDropletInput } from '../../src/steps/inputs.ts';

const folder = fileURLToPath(new URL('../../docs/schemas/', import.meta.url));

test('are those of this version; if not, `npm run schemas` writes them anew', () => {
  const committed = new Map(readdirSync(folder).map((file) => [file, readFileSync(`${folder}${file}`, 'utf8')]));
  expect(Object.fromEntries(committed)).toEqual(Object.fromEntries(jsonSchemas()));
});

describe('a job of provision_droplet', () => {
  const ajv = new Ajv2020({ strict: false });
  addFormats.default(ajv);
  const validate = ajv.compile(z.looseObject({}).parse(JSON.parse(readFileSync(`${folder}sagas.provision_droplet.json`, 'utf8'))));
  const good = { name: 'web-1', region: 'fra1', size: 's-1vcpu-1gb', image: 'debian-12-x64' };

  test.each<[string, object, boolean]>([
    ['the least', good, true],
    ['an image by id', { ...good, image: 4711 }, true],
    ['tags, user data, a VPC', { ...good, tags: ['a:b'], user_data: '#!/bin/sh', vpc_uuid: '5a4981aa-9653-4bd1-bef5-d6bff52042e4' }, true],
    ['no region', { name: 'web-1', size: 's-1vcpu-1gb', image: 'debian-12-x64' }, false],
    ['a name that is no host name', { ...good, name: 'web_1' }, false],
    ['a field that is not known', { ...good, colour: 'red' }, false],
    ['user data that is too long', { ...good, user_data: 'x'.repeat(65_537) }, false],
  ])('with %s is judged alike by both', (_what, input, isValid) => {
    expect([validate({ input, idempotencyKey: 'order-1' }), provisionDropletInput.safeParse(input).success]).toEqual([isValid, isValid]);
  });
});
