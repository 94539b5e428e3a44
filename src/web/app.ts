// The type of the web application, for whatever adds routes to it.
import type { FastifyBaseLogger, FastifyInstance, RawReplyDefaultExpression, RawRequestDefaultExpression, RawServerDefault } from 'fastify';
import type { ZodTypeProvider } from 'fastify-type-provider-zod';
import type { Scope } from '../platform/config.ts';
import type { FleetWatch } from './fleet-status.ts';

export type App = FastifyInstance<
  RawServerDefault,
  RawRequestDefaultExpression,
  RawReplyDefaultExpression,
  FastifyBaseLogger,
  ZodTypeProvider
>;

/** Who is asking. The name goes into the audit. */
export type Principal = Readonly<{ name: string; scopes: readonly Scope[]; kind: 'person' | 'program' | 'anybody' }>;

declare module 'fastify' {
  interface FastifyContextConfig {
    /** What a caller must be allowed to do; `nothing`: anybody may. Where it is left out: `read` for GET, else `operate`. */
    needs?: Scope | 'nothing';
    /** Anybody may, and whoever shows credentials is told more: wrong ones are refused. */
    tellsMore?: boolean;
    /** What is found at this address never changes, and holds nothing of anybody: a browser may keep it. */
    isForGood?: boolean;
  }

  interface FastifyInstance {
    /** What every page shows of the fleet. */
    fleet: Pick<FleetWatch, 'glance'>;
    /** Path under which a proxy serves all of this; empty: at the root. Addresses inside are written without it. */
    basePath: string;
  }

  interface FastifyRequest {
    principal: Principal | null;
  }
}
