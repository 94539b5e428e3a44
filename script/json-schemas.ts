// Makes JSON Schemas for programs in other languages from the zod schemas that the workers enforce.
import { z } from 'zod';
import { catalog } from '../src/steps/catalog.ts';
import { intakeJobSchema, stepJobSchema } from '../src/queues/jobs.ts';
import { bulkBody, bulkRetryBody } from '../src/web/api/bulk-shapes.ts';
import { cancelBody, rerunBody } from '../src/web/api/saga-shapes.ts';

/** File name and text of each JSON Schema. They lack checks that only zod can make, such as reserved tags. */
export function jsonSchemas(): Map<string, string> {
  const files = new Map<string, string>();
  const add = (file: string, title: string, schema: z.ZodType) => {
    const { $schema, ...rest } = z.toJSONSchema(schema, { io: 'input' });
    files.set(`${file}.json`, `${JSON.stringify({ $schema, title, ...rest }, null, 2)}\n`);
  };
  for (const [name, { input }] of Object.entries(catalog)) {
    add(`${name}.input`, `Input of ${name}: body of POST /v1/sagas/${name}, argument of arcadia.start_saga`, input);
    add(`sagas.${name}`, `Data of a job called ${name} in the queue sagas`, intakeJobSchema.extend({ input }));
  }
  const dropletLabels = { dropletId: z.int().optional().describe('the droplet of a droplet saga; other sagas have labels of their own') };
  add('saga-steps', 'Data of a job in the queues saga-steps and saga-compensations', stepJobSchema.extend(dropletLabels));
  add('cancel', 'Body of POST /v1/sagas/:id/cancel', cancelBody);
  add('rerun', 'Body of POST /v1/sagas/:id/rerun', rerunBody);
  add('bulk-cancel', 'Body of POST /v1/bulk/cancel', bulkBody);
  add('bulk-retry', 'Body of POST /v1/bulk/retry', bulkRetryBody);
  add('bulk-rerun', 'Body of POST /v1/bulk/rerun', bulkRetryBody);
  return files;
}
