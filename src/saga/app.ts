// Steps, sagas and apps as their authors write them: each function checks what it is given when it is called, and returns it.
// An app is the sagas that a fleet runs, and what their steps are given to work with.
import { z } from 'zod';
import type { JsonObject } from '../platform/json.ts';
import type { Log } from '../platform/log.ts';
import { checkNeeds } from './context.ts';
import type { Catalog, SagaDefinition } from './definition.ts';
import { checkCatalog } from './definition.ts';
import type { WorkerHost } from './extension.ts';
import type { Labels } from './labels.ts';
import { nameTwice, requireName } from './names.ts';
import type { Step, StepOutcome, StepRun } from './step.ts';
import type { SagaFacts, SagaWords, Subject } from './words.ts';

/** A saga with its name: what {@link defineSaga} returns. */
export type NamedSaga<Deps = never, Input extends JsonObject = JsonObject, Outputs extends JsonObject = JsonObject> = SagaDefinition<Deps> &
  Readonly<{
    name: string;
    input: z.ZodType<Input>;
    /** What its steps say that they add, all together; other keys are let through. */
    outputs: z.ZodType<Outputs>;
  }>;

/** What an app's `deps` is given when a worker starts. */
export type AppContext = Readonly<{
  log: Log;
  /** Names a function that closes what `deps` opened. It is called when the worker ends, or its start fails; last named, first called. */
  onClose(close: () => unknown): void;
  /** The worker, for functions that open what the steps of a family work with. */
  worker: WorkerHost;
}>;

/** An app: what {@link defineApp} returns. */
export type App = Readonly<{
  kind: 'arcadia-app';
  sagas: readonly NamedSaga[];
  /** The same by name. */
  catalog: Catalog<never>;
  /** Opens what the steps work with; called once by each worker, when it starts. */
  openDeps(context: AppContext): Promise<object>;
}>;

type Shape = z.ZodObject | undefined;

/** What a step finds where it says what it needs; else any object. */
type Found<Needs extends Shape> = Needs extends z.ZodObject ? z.output<Needs> : JsonObject;

/** What it must put out where it says what it adds; else any outputs. */
type Added<Adds extends Shape> = Adds extends z.ZodObject ? JsonObject & z.input<Adds> : JsonObject;

/** A step with its types: see {@link defineStep}. */
type TypedStep<Deps, Needs extends Shape, Adds extends Shape> = Omit<Step<Deps>, 'needs' | 'adds' | 'execute' | 'compensate'> &
  Readonly<{
    needs?: Needs;
    adds?: Adds;
    execute(run: StepRun<Found<Needs>>, deps: Deps): Promise<StepOutcome<Added<Adds>>>;
    /** It also runs where steps did nothing: anything may be missing from the context. */
    compensate(run: StepRun<Partial<Found<Needs> & Found<Adds>>>, deps: Deps): Promise<StepOutcome>;
  }>;

/**
 * A step of one's own. The types of its context and of its outputs follow from `needs` and `adds`; that of its `deps` is said at
 * the parameter.
 *
 * @throws {TypeError} naming what is wrong with it
 */
export function defineStep<Deps, Needs extends Shape = undefined, Adds extends Shape = undefined>(given: TypedStep<Deps, Needs, Adds>): Step<Deps, JsonObject, Added<Adds>> {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the engine gives each step the context that it says it needs
  const step = given as unknown as Step<Deps, JsonObject, Added<Adds>>;
  requireName(`step ${JSON.stringify(step.name)}`, step.name);
  for (const part of ['execute', 'compensate'] as const) {
    if (typeof step[part] !== 'function') throw new TypeError(`step ${step.name}: ${part} is missing; expected a function (a step that leaves nothing behind returns done() from it)`);
  }
  return step;
}

/** A subject as an author writes it: what is not known may be left out. */
type About = Readonly<{ kind?: string; name?: string | null | undefined; id?: string | number | null | undefined }>;

// oxlint-disable-next-line typescript/no-explicit-any -- of whatever types: they are taken from it
type AnyStep = Step<any, any, any>;

/** What all steps of a saga need to work with, and what they add: types of several as one. */
type AllOf<Union> = (Union extends unknown ? (one: Union) => void : never) extends (one: infer All) => void ? All : never;
type DepsOf<S> = S extends Readonly<{ execute(run: never, deps: infer Deps): unknown }> ? Deps : never;
type AddsOf<S> = S extends Readonly<{ execute(run: never, deps: never): Promise<StepOutcome<infer Adds>> }> ? Adds : never;
type OutputsOf<Steps extends readonly AnyStep[]> = AllOf<AddsOf<Steps[number]>> & JsonObject;

/** What the words of a saga are given: its input, and of its steps' outputs what there is so far. */
type FactsOf<Input extends JsonObject, Steps extends readonly AnyStep[]> = Readonly<{ input: Input; context: Partial<OutputsOf<Steps>> & JsonObject; error: SagaFacts['error'] }>;

/**
 * A saga of one's own. What its functions are given is typed by its input and by what its steps add.
 *
 * @param saga.steps in forward order; they are undone in reverse
 * @param saga.subject what it is about: shown in lists, and found by search
 * @param saga.resource what its steps work on: see `SagaDefinition`
 * @param saga.words what it says to people; plain facts where left out
 * @param saga.secrets names of fields of its input, of text, that are sealed at rest, shown nowhere, and erased at the end; a step opens
 *   one by `run.secret`
 * @param saga.labels what its jobs and traces tell of it, such as `{ serverId: context.server_id }`; for people to read
 * @throws {TypeError} naming what is wrong with it
 */
export function defineSaga<Input extends JsonObject, const Steps extends readonly AnyStep[]>(
  given: Readonly<{
    name: string;
    input: z.ZodType<Input>;
    steps: Steps;
    subject?: (saga: FactsOf<Input, Steps>) => About;
    words?: Partial<SagaWords<FactsOf<Input, Steps>>>;
    isDestructive?: boolean;
    resource?(saga: FactsOf<Input, Steps>): string | null | undefined;
    labels?: (saga: Pick<FactsOf<Input, Steps>, 'input' | 'context'>) => Labels;
    secrets?: readonly string[];
  }>,
): NamedSaga<AllOf<DepsOf<Steps[number]>>, Input, OutputsOf<Steps>> {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the engine calls these functions with what the types say
  const saga = given as unknown as Omit<NamedSaga<AllOf<DepsOf<Steps[number]>>, Input>, 'outputs'> & { subject?: (saga: SagaFacts) => About };
  const { subject, words = {}, ...rest } = saga;
  requireName(`saga ${JSON.stringify(saga.name)}`, saga.name);
  if (saga.steps.length === 0) throw new TypeError(`saga ${saga.name}: expected at least one step`);
  const twice = nameTwice(saga.steps);
  if (twice !== undefined) throw new TypeError(`saga ${saga.name}: step ${twice} stands in it twice`);
  checkNeeds(saga);
  // A secret by a wrong name would be kept in the clear.
  const shape = 'shape' in saga.input && typeof saga.input.shape === 'object' ? saga.input.shape : null;
  const misnamed = saga.secrets?.find((field) => shape !== null && !Object.hasOwn(shape, field));
  if (misnamed !== undefined) throw new TypeError(`saga ${saga.name}: secret ${misnamed} is no field of the input`);
  const added: z.ZodRawShape = Object.fromEntries(saga.steps.flatMap(({ adds }) => Object.entries(adds?.shape ?? {})));
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the type says what the shapes do
  const outputs = z.looseObject(added) as unknown as z.ZodType<OutputsOf<Steps>>;
  return { ...rest, outputs, words: subject === undefined ? words : { ...words, subject: (facts) => aboutOf(saga.name, subject(facts)) } };
}

// oxlint-disable-next-line typescript/no-explicit-any -- of whatever types: they are taken from it
type AnySaga = NamedSaga<any, any, any>;

/** What all steps of an app need to work with. */
type DepsOfAll<Sagas extends readonly AnySaga[]> = AllOf<DepsOf<Sagas[number]['steps'][number]>> & object;

/**
 * An app.
 *
 * @param app.sagas each name once; a step may stand in several sagas, but two steps must not share a name
 * @param app.deps opens what the steps work with
 * @throws {TypeError} naming what is wrong with it
 */
export function defineApp<const Sagas extends readonly AnySaga[]>(
  app: Readonly<{ sagas: Sagas; deps: (context: AppContext) => DepsOfAll<Sagas> | Promise<DepsOfAll<Sagas>> }>,
): App {
  const { deps } = app;
  const sagas: readonly NamedSaga[] = app.sagas;
  if (sagas.length === 0) throw new TypeError('app: expected at least one saga');
  const twice = nameTwice(sagas);
  if (twice !== undefined) throw new TypeError(`app: saga ${twice} stands in it twice`);
  const catalog: Catalog<never> = Object.fromEntries(sagas.map((saga) => [saga.name, saga]));
  checkCatalog(catalog);
  return { kind: 'arcadia-app', sagas, catalog, openDeps: async (context) => deps(context) };
}

/** Whether a value is an app, be it of another copy of this package. */
export function isApp(value: unknown): value is App {
  return typeof value === 'object' && value !== null && 'kind' in value && value.kind === 'arcadia-app';
}

function aboutOf(saga: string, { kind = saga, name = null, id = null }: About): Subject {
  return { kind, name, id: id === null ? null : String(id) };
}
