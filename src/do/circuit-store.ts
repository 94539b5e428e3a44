// The circuits that the fleet shares, in Postgres and by its clock. One function, one statement.
import type { Database, Sql } from '../platform/db.ts';
import type { JsonObject } from '../platform/json.ts';
import { jsonText } from '../platform/json.ts';

/**
 * `token_refused` concerns every request. `request_refused` concerns one kind of request, which probably lacks a scope.
 * `account_full` concerns creates: the account has no room for another droplet.
 */
type CircuitKind = 'token_refused' | 'request_refused' | 'account_full';

/** The cause of a circuit. Each cause has one circuit. */
type Cause = Readonly<{
  cause: string;
  kind: CircuitKind;
  /** For example `POST /v2/droplets`; null: every request. */
  request: string | null;
  /** Optional fields of the refused request. A request with at least these fields is refused too. */
  fields: readonly string[];
}>;

/** An open circuit, as read from the store. */
export type OpenCircuit = Cause &
  Readonly<{
    /** Identifies this opening. */
    id: string;
    /**
     * If only one subject was refused so far (a droplet's name or its path), that subject. Null: the circuit holds all
     * subjects.
     */
    subject: string | null;
    openedAt: Date;
    detail: JsonObject;
    relapses: number;
    /** Time until the next probe is allowed; 0 or less: now. */
    probeInMs: number;
    /** Whether a saga is invited to probe, whenever it comes. */
    isInvited: boolean;
  }>;

export type Delays = Readonly<{ firstMs: number; maxMs: number }>;

export type CircuitStore = Readonly<{
  /** Lists the open circuits of this token. */
  listOpen(): Promise<readonly OpenCircuit[]>;
  /**
   * Opens a circuit or records another refusal. `lease` is set if the refused request was the probe; the next probe then
   * comes later.
   */
  refuse(refusal: Cause & { subject: string | null; detail: JsonObject; lease: string | null }): Promise<OpenCircuit>;
  /**
   * Leases the right to probe if a probe is due and the lease is free. The lease expires after `leaseMs`. If nobody came
   * for an invitation, the delay doubles. `invitedOnly`: only a saga that is invited, see {@link CircuitStore.invite}.
   */
  lease(id: string, leaseMs: number, invitedOnly: boolean): Promise<string | null>;
  /**
   * Returns the lease of an inconclusive probe. `isAsked`: a request was sent, so the next probe waits for the delay.
   * `invitedForMs`: the invited saga waits for the request budget and comes back then, so the invitation stands; null: it
   * was not invited.
   */
  giveBack(id: string, lease: string, how: { isAsked: boolean; invitedForMs: number | null }): Promise<void>;
  close(id: string): Promise<void>;
  /** Returns the lease of a probe after which a saga is to probe: it may, until the next probe is due after the delay. */
  invite(id: string, lease: string): Promise<void>;
  /** Returns the lease of a probe that succeeded, and makes the next one due now, with the first delay. The circuit stays open. */
  goOn(id: string, lease: string): Promise<void>;
  /** Makes the next probe due now, with the first delay: what the circuit waits for has probably happened. */
  hasten(id: string): Promise<void>;
  /** Claims the right to wake a saga that is to probe, for a few seconds. */
  takeWaking(id: string): Promise<boolean>;
  /** Makes the next probe of each circuit due now, or as soon as the first delay has passed since the last one. */
  hurry(): Promise<void>;
  /** Deletes circuits that closed long ago or that nothing has probed for a long time. */
  prune(): Promise<void>;
}>;

// A saga that was woken to probe does so within this time or not at all.
const WAKING_MS = 5_000;

// In place of a lease: the next request of the circuit's kind may probe.
const INVITED = '00000000-0000-0000-0000-000000000000';

// If a circuit reopens within this time plus twice its delay, the probe that closed it was misleading.
const RELAPSE_MS = 60_000;

const FORGET_MS = 15 * 60_000;

const columns = (sql: Sql) => sql`
  id, cause, kind, request, fields, subject, opened_at, detail, relapses,
  (extract(epoch from next_probe_at - clock_timestamp()) * 1000)::float8 as probe_in_ms,
  coalesce(leased_by = ${INVITED}::uuid and waking_until > clock_timestamp(), false) as is_invited`;

/** Creates the store for one token, identified by its fingerprint. */
export function createCircuitStore(db: Pick<Database, 'run'>, scope: string, { firstMs, maxMs }: Delays): CircuitStore {
  return {
    listOpen: () => db.run('circuits.list', (sql) => sql<OpenCircuit[]>`select ${columns(sql)} from arcadia.circuits where scope = ${scope} and closed_at is null`),

    refuse: async ({ cause, kind, request, fields, subject, detail, lease }) => {
      const [row] = await db.run(
        'circuits.refuse',
        (sql) => sql<OpenCircuit[]>`
          insert into arcadia.circuits as circuit (scope, cause, kind, request, fields, subject, detail, delay_ms, next_probe_at)
          values (${scope}, ${cause}, ${kind}, ${request}, ${[...fields]}::text[], ${subject}, ${jsonText(detail)}::text::jsonb, ${firstMs}, clock_timestamp() + ${firstMs}::float8 * interval '1 millisecond')
          on conflict (scope, cause) do update set (id, closed_at, opened_at, subject, detail, delay_ms, next_probe_at, probes, relapses, leased_by, leased_until, waking_until) = (
            select
              case when is_open then circuit.id else gen_random_uuid() end,
              null::timestamptz,
              case when is_open or is_relapse then circuit.opened_at else clock_timestamp() end,
              case when is_open and circuit.subject is distinct from excluded.subject then null when is_open then circuit.subject else excluded.subject end,
              case when is_open and not is_probe then circuit.detail else excluded.detail end,
              next_delay,
              case when is_open and not is_probe then circuit.next_probe_at else clock_timestamp() + next_delay * interval '1 millisecond' end,
              case when is_probe then circuit.probes + 1 when is_open then circuit.probes else 0 end,
              case when is_open then circuit.relapses when is_relapse then circuit.relapses + 1 else 0 end,
              case when is_open and not is_probe then circuit.leased_by end,
              case when is_open and not is_probe then circuit.leased_until else '-infinity'::timestamptz end,
              case when is_open and not is_probe then circuit.waking_until else '-infinity'::timestamptz end
            from (
              select is_open, is_probe, is_relapse,
                     case when is_open and not is_probe then circuit.delay_ms when is_open or is_relapse then least(circuit.delay_ms * 2, ${maxMs}::float8) else ${firstMs}::float8 end as next_delay
              from (
                select circuit.closed_at is null as is_open,
                       circuit.closed_at is null and coalesce(circuit.leased_by = ${lease}::uuid, false) as is_probe,
                       coalesce(circuit.closed_at > clock_timestamp() - (2 * circuit.delay_ms + ${RELAPSE_MS}::float8) * interval '1 millisecond', false) as is_relapse
              ) as seen
            ) as decided
          )
          returning ${columns(sql)}`,
      );
      if (row === undefined) throw new Error('circuits.refuse: no answer');
      return row;
    },

    lease: async (id, leaseMs, invitedOnly) => {
      const [row] = await db.run(
        'circuits.lease',
        (sql) => sql<{ leasedBy: string }[]>`
          update arcadia.circuits
          set leased_by = gen_random_uuid(), leased_until = clock_timestamp() + ${leaseMs}::float8 * interval '1 millisecond',
              delay_ms = case when leased_by = ${INVITED}::uuid and not ${invitedOnly}::boolean then least(delay_ms * 2, ${maxMs}::float8) else delay_ms end
          where id = ${id} and closed_at is null and leased_until < clock_timestamp()
            and case when ${invitedOnly}::boolean then leased_by = ${INVITED}::uuid and waking_until > clock_timestamp() else next_probe_at <= clock_timestamp() end
          returning leased_by`,
      );
      return row?.leasedBy ?? null;
    },

    giveBack: async (id, lease, { isAsked, invitedForMs }) => {
      const untilMs = invitedForMs === null ? null : invitedForMs + WAKING_MS;
      await db.run(
        'circuits.give_back',
        (sql) => sql`
          update arcadia.circuits
          set leased_by = case when ${untilMs}::float8 is not null then ${INVITED}::uuid end, leased_until = '-infinity',
              waking_until = coalesce(clock_timestamp() + ${untilMs}::float8 * interval '1 millisecond', waking_until),
              next_probe_at = clock_timestamp() + coalesce(${untilMs}::float8, case when ${isAsked}::boolean then delay_ms else 0 end) * interval '1 millisecond'
          where id = ${id} and leased_by = ${lease}`,
      );
    },

    close: async (id) => {
      await db.run('circuits.close', (sql) => sql`update arcadia.circuits set closed_at = clock_timestamp(), leased_by = null, leased_until = '-infinity' where id = ${id} and closed_at is null`);
    },

    invite: async (id, lease) => {
      await db.run(
        'circuits.invite',
        (sql) => sql`
          update arcadia.circuits
          set leased_by = ${INVITED}, leased_until = '-infinity', next_probe_at = clock_timestamp() + delay_ms * interval '1 millisecond',
              waking_until = clock_timestamp() + greatest(delay_ms, ${WAKING_MS}::float8) * interval '1 millisecond'
          where id = ${id} and leased_by = ${lease}`,
      );
    },

    goOn: async (id, lease) => {
      await db.run(
        'circuits.go_on',
        (sql) => sql`
          update arcadia.circuits
          set leased_by = null, leased_until = '-infinity', waking_until = '-infinity', next_probe_at = clock_timestamp(), delay_ms = ${firstMs}
          where id = ${id} and leased_by = ${lease}`,
      );
    },

    hasten: async (id) => {
      await db.run('circuits.hasten', (sql) => sql`update arcadia.circuits set next_probe_at = clock_timestamp(), delay_ms = ${firstMs} where id = ${id} and closed_at is null`);
    },

    takeWaking: async (id) => {
      const rows = await db.run(
        'circuits.take_waking',
        (sql) => sql`
          update arcadia.circuits set waking_until = clock_timestamp() + ${WAKING_MS}::float8 * interval '1 millisecond'
          where id = ${id} and closed_at is null and next_probe_at <= clock_timestamp() and leased_until < clock_timestamp() and waking_until < clock_timestamp()
          returning id`,
      );
      return rows.length > 0;
    },

    hurry: async () => {
      // Workers that start again and again must not probe each time.
      await db.run(
        'circuits.hurry',
        (sql) => sql`
          update arcadia.circuits set next_probe_at = greatest(clock_timestamp(), next_probe_at - greatest(0, delay_ms - ${firstMs}::float8) * interval '1 millisecond')
          where scope = ${scope} and closed_at is null and next_probe_at > clock_timestamp()`,
      );
    },

    prune: async () => {
      await db.run(
        'circuits.prune',
        (sql) => sql`
          delete from arcadia.circuits
          where coalesce(closed_at, next_probe_at) < clock_timestamp() - ${FORGET_MS}::float8 * interval '1 millisecond'`,
      );
    },
  };
}
