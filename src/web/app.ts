// The type of the web application, for modules that add routes.
import type { FastifyBaseLogger, FastifyInstance, RawReplyDefaultExpression, RawRequestDefaultExpression, RawServerDefault } from 'fastify';
import type { ZodTypeProvider } from 'fastify-type-provider-zod';
import type { Scope } from '../platform/api-tokens.ts';
import type { FleetWatch } from './fleet-status.ts';

export type App = FastifyInstance<
  RawServerDefault,
  RawRequestDefaultExpression,
  RawReplyDefaultExpression,
  FastifyBaseLogger,
  ZodTypeProvider
>;

/** What a route may need: a scope, or to start a saga for which `start` sufficed, which some tokens may do without the scope `destroy`. */
export type Right = Scope | 'destroy_by_start';

/**
 * The authenticated caller. The name goes into the audit trail. `impliesDestroy`: a token that may start
 * destructive sagas for which `start` sufficed.
 */
export type Principal = Readonly<{ name: string; scopes: readonly Scope[]; kind: 'person' | 'program' | 'anybody'; impliesDestroy?: boolean }>;

declare module 'fastify' {
  interface FastifyContextConfig {
    /** What a caller needs, all of a list; `nothing`: public. Default: `read` for GET, else `operate`. */
    needs?: Right | readonly Right[] | 'nothing';
    /** Public, but callers with credentials see more. Wrong credentials are refused. */
    tellsMore?: boolean;
    /** Without credentials configured, the host of PUBLIC_URL is answered too. */
    isForDroplets?: boolean;
    /** The content at this URL never changes and is not personal, so browsers may cache it. */
    isForGood?: boolean;
  }

  interface FastifyInstance {
    /** The fleet's state for every page. */
    fleet: Pick<FleetWatch, 'glance'>;
    /** Whether the app works with droplets: only then are there pages about them. */
    hasDroplets: boolean;
    /** Path under which a proxy serves the application; empty: the root. Internal URLs omit it. */
    basePath: string;
  }

  interface FastifyRequest {
    principal: Principal | null;
  }
}
