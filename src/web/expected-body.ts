// What a route expects as its body, for the answer to a request without one.
import { z } from 'zod';

/** Whether a request may leave out its body, or a body this field. */
export function mayBeLeftOut(schema: unknown): boolean {
  if (!(schema instanceof z.ZodType)) return true;
  try {
    return schema.safeParse(undefined).success;
  } catch {
    // A saga's schema is its author's code.
    return false;
  }
}

/** Describes a body: names the fields that are required, or else all. */
export function expectationOf(schema: unknown): string {
  const fields = schema instanceof z.ZodObject ? Object.entries(schema.shape) : [];
  const required = fields.filter(([, field]) => !mayBeLeftOut(field));
  const names = (required.length > 0 ? required : fields).map(([name]) => name);
  return names.length === 0 ? 'expected a JSON object' : `expected a JSON object with ${names.join(', ')}`;
}
