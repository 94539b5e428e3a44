// How single variables of the environment are parsed, each with the words that say what was expected.
import { isIP } from 'node:net';
import { z } from 'zod';
import { ConfigError } from './config-error.ts';
import { readDatabaseUrl } from './database-url.ts';
import { KeyRingError, parseKeyRing } from './key-ring.ts';
import { RedisUrlError, readRedisNodes, splitRedisUrl } from './redis-url.ts';

export const milliseconds = (fallback: number) => wholeNumber(fallback, 1, 2_147_483_647);

export function flag(fallback: 'true' | 'false') {
  return z.enum(['true', 'false'], 'expected true or false').default(fallback).transform((value) => value === 'true');
}

export function wholeNumber(fallback: number, min: number, max: number) {
  return numberBetween(min, max).prefault(String(fallback));
}

export function numberBetween(min: number, max: number) {
  return z
    .string()
    .regex(/^\d{1,15}$/, `expected a whole number from ${min} to ${max}`)
    .transform(Number)
    .refine((value) => value >= min && value <= max, `expected a whole number from ${min} to ${max}`);
}

export const isUrlOf = (protocols: readonly string[]) => (value: string) =>
  URL.canParse(value) && protocols.includes(new URL(value).protocol);

/** It is put into shell scripts: no more than what every URL is made of. */
export function isPublicUrl(value: string): boolean {
  return /^https?:\/\/[A-Za-z0-9.:[\]-]+(\/[A-Za-z0-9._~/-]*)?$/.test(value) && URL.canParse(value);
}

export const redisNodes = z.string().transform((value, context) => {
  const nodes = splitRedisUrl(value);
  try {
    readRedisNodes(nodes);
    return nodes;
  } catch (error) {
    if (!(error instanceof RedisUrlError)) throw error;
    context.addIssue({ code: 'custom', message: error.message });
    return z.NEVER;
  }
});

/** A comma-separated list. */
export function listOf(isEntry: (entry: string) => boolean, expected: string) {
  return z
    .string()
    .transform((value) => value.split(',').map((entry) => entry.trim()))
    .refine((entries) => entries.every(isEntry), expected)
    .default([]);
}

/** Accepts an address or a range of addresses, but not the range of all addresses: then anyone could claim to be anyone. */
export function isAddressRange(text: string): boolean {
  const [address = '', prefix, ...rest] = text.split('/');
  const family = isIP(address);
  if (family === 0 || rest.length > 0) return false;
  return prefix === undefined || (/^[1-9]\d{0,2}$/.test(prefix) && Number(prefix) <= (family === 4 ? 32 : 128));
}

const WEIGHTS_SYNTAX = 'expected name=weight, separated by commas, such as http:web=3,cli:batch=0.5; a weight is a number from 0.01 to 1000';

/** The weights of requesters. A name may contain anything but a comma, also `=`. */
export const requesterWeights = z.string().transform((value, context) => {
  const entries = value.split(',').map((entry) => /^\s*(?<name>.*\S)\s*=\s*(?<weight>\d{1,4}(?:\.\d{1,4})?)\s*$/u.exec(entry)?.groups);
  const weights = new Map(entries.flatMap((entry) => (entry?.['name'] === undefined ? [] : [[entry['name'], Number(entry['weight'])] as const])));
  if (entries.includes(undefined) || [...weights.values()].some((weight) => weight < 0.01 || weight > 1_000)) context.addIssue({ code: 'custom', message: WEIGHTS_SYNTAX });
  else if (weights.size < entries.length) context.addIssue({ code: 'custom', message: 'expected each name once' });
  else return Object.fromEntries(weights);
  return z.NEVER;
});

export const keyRing = z.string().transform((value, context) => {
  try {
    return parseKeyRing(value);
  } catch (error) {
    if (!(error instanceof KeyRingError)) throw error;
    context.addIssue({ code: 'custom', message: error.message });
    return z.NEVER;
  }
});

export const databaseUrl = z.string().superRefine((value, context) => {
  try {
    readDatabaseUrl(value);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    for (const line of error.message.split('\n')) context.addIssue({ code: 'custom', message: line.trim().replace(/^DATABASE_URL: /, '') });
  }
});

// Standard Webhooks: from 24 to 64 bytes, in base64.
const WEBHOOK_SECRET_SYNTAX = 'expected secrets separated by commas, newest first, each whsec_ and 24 to 64 bytes in base64; `echo whsec_$(openssl rand -base64 32)` makes one';

export const webhookSecrets = z
  .string()
  .transform((value) => value.split(',').map((entry) => entry.trim()))
  .refine((secrets) => secrets.every(isWebhookSecret), WEBHOOK_SECRET_SYNTAX);

function isWebhookSecret(secret: string): boolean {
  const [, encoded = ''] = /^whsec_([A-Za-z0-9+/]+={0,2})$/.exec(secret) ?? [];
  const bytes = Buffer.from(encoded, 'base64');
  return bytes.toString('base64') === encoded && bytes.length >= 24 && bytes.length <= 64;
}

export const webhookUrl = z
  .string()
  .refine(isUrlOf(['http:', 'https:']), 'expected https://host/path')
  .refine((value) => !URL.canParse(value) || (new URL(value).username === '' && new URL(value).password === ''), 'expected no user name and password in it; the signature proves who sends');

/** What a person may do: look; also start sagas that destroy nothing; everything. */
export const roles = ['read', 'start', 'operate'] as const;

export type Role = (typeof roles)[number];

// What these say is settled elsewhere, or would let the caller log in as anybody.
const HEADERS_WITH_A_MEANING: ReadonlySet<string> = new Set(['authorization', 'host', 'cookie', 'origin', 'forwarded', 'x-forwarded-for', 'x-forwarded-host', 'x-forwarded-proto', 'content-type', 'content-length', 'user-agent', 'idempotency-key']);

export const userHeader = z
  .string()
  .toLowerCase()
  .refine((name) => /^[a-z0-9-]{1,100}$/.test(name) && !HEADERS_WITH_A_MEANING.has(name), 'expected the name of the header in which the proxy names the user, such as X-Forwarded-User');
