// Defines steps, sagas and apps. Each function validates its argument when called and returns it. An app is the set of
// sagas that a fleet runs, together with the dependencies of their steps.
import { z } from 'zod';
import type { JsonObject } from '../platform/json.ts';
import type { Log } from '../platform/log.ts';
import { requireCarriedOut } from './carried-out.ts';
import { checkApp, checkSaga, checkStep } from './check-definition.ts';
import { checkNeeds } from './context.ts';
import type { Catalog, SagaDefinition } from './definition.ts';
import { checkCatalog } from './definition.ts';
import type { WorkerHost } from './extension.ts';
import { declaredFields, fieldsOf, mayBeText, schemasOf } from './input-fields.ts';
import type { Labels } from './labels.ts';
import { nameTwice, requireSteps } from './names.ts';
import type { Step, StepOutcome, StepRun } from './step.ts';
import type { SagaFacts, SagaWords, Subject } from './saga-words.ts';

/** A saga with its name, as {@link defineSaga} returns it. `Given`: the input before its schema fills in and transforms it. */
export type NamedSaga<Deps = never, Input extends JsonObject = JsonObject, Outputs extends JsonObject = JsonObject, Given = unknown> = SagaDefinition<Deps> &
  Readonly<{
    name: string;
    input: z.ZodType<Input, Given>;
    /** The declared outputs of all its steps; other keys are allowed. */
    outputs: z.ZodType<Outputs>;
  }>;

/** The argument of an app's `deps` when a worker starts. */
export type AppContext = Readonly<{
  log: Log;
  /**
   * Registers a function that closes what `deps` opened. It is called when the worker stops or fails to start, in reverse
   * order of registration.
   */
  onClose(close: () => unknown): void;
  /** The worker, for functions that open the dependencies of a step family. */
  worker: WorkerHost;
}>;

/** An app, as {@link defineApp} returns it. */
export type App = Readonly<{
  kind: 'arcadia-app';
  sagas: readonly NamedSaga[];
  /** The sagas by name. */
  catalog: Catalog<never>;
  /** Opens the dependencies of the steps. Each worker calls it once, at startup. */
  openDeps(context: AppContext): Promise<object>;
}>;

type Shape = z.ZodObject | undefined;

/** The context of a step: typed by `needs` if declared, else any object. */
type Found<Needs extends Shape> = Needs extends z.ZodObject ? z.output<Needs> : JsonObject;

/** The outputs of a step: typed by `adds` if declared, else any outputs. */
type Added<Adds extends Shape> = Adds extends z.ZodObject ? JsonObject & z.input<Adds> : JsonObject;

type Field = string | undefined;

/** A typed step: see {@link defineStep}. */
type TypedStep<Deps, Needs extends Shape, Adds extends Shape, OnlyWith extends Field> = Omit<Step<Deps>, 'needs' | 'adds' | 'onlyWith' | 'execute' | 'compensate'> &
  Readonly<{
    needs?: Needs;
    adds?: Adds;
    onlyWith?: OnlyWith;
    execute(run: StepRun<Found<Needs>>, deps: Deps): Promise<StepOutcome<Added<Adds>>>;
    /** Also runs if earlier steps did nothing, so any key may be missing from the context. */
    compensate(run: StepRun<Partial<Found<Needs> & Found<Adds>>>, deps: Deps): Promise<StepOutcome>;
  }>;

/** Tells the types of a saga that only some sagas have the step. */
type MarkOf<OnlyWith extends Field> = OnlyWith extends string ? Readonly<{ onlyWith: OnlyWith }> : unknown;

/**
 * Defines a step. `needs` and `adds` determine the types of its context and its outputs. Annotate the type of `deps` on
 * the parameter.
 *
 * @throws {TypeError} naming the problem
 */
export function defineStep<Deps, Needs extends Shape = undefined, Adds extends Shape = undefined, OnlyWith extends Field = Field>(
  given: TypedStep<Deps, Needs, Adds, OnlyWith>,
): Step<Deps, JsonObject, Added<Adds>> & MarkOf<OnlyWith> {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the engine gives each step the context that it says it needs
  const step = given as unknown as Step<Deps, JsonObject, Added<Adds>> & MarkOf<OnlyWith>;
  checkStep(step);
  return step;
}

/** A subject as an author writes it. Unknown parts may be omitted. */
type About = Readonly<{ kind?: string; name?: string | null | undefined; id?: string | number | null | undefined }>;

// oxlint-disable-next-line typescript/no-explicit-any -- of whatever types: they are taken from it
type AnyStep = Step<any, any, any>;

/** What all steps of a saga depend on and add: intersects the types of several steps. */
type AllOf<Union> = (Union extends unknown ? (one: Union) => void : never) extends (one: infer All) => void ? All : never;
type DepsOf<S> = S extends Readonly<{ execute(run: never, deps: infer Deps): unknown }> ? Deps : never;
/** What a step adds: all of it is optional if only some sagas have the step. */
type AddsOf<S> = S extends Readonly<{ execute(run: never, deps: never): Promise<StepOutcome<infer Adds>> }> ? (S extends Readonly<{ onlyWith: string }> ? Partial<Adds> : Adds) : never;
type OutputsOf<Steps extends readonly AnyStep[]> = AllOf<AddsOf<Steps[number]>> & JsonObject;

/** The argument of a saga's words: its input, and the step outputs that exist so far. */
type FactsOf<Input extends JsonObject, Steps extends readonly AnyStep[]> = Readonly<{ input: Input; context: Partial<OutputsOf<Steps>> & JsonObject; error: SagaFacts['error'] }>;

/**
 * Defines a saga. The arguments of its functions are typed by its input and by what its steps add.
 *
 * @param saga.steps in forward order; compensated in reverse
 * @param saga.subject what the saga is about: shown in lists and found by search
 * @param saga.resource what its steps work on: see `SagaDefinition`
 * @param saga.words its texts for people; plain facts by default
 * @param saga.secrets names of text fields of its input that are sealed at rest, never shown, and erased at the end; a
 *   step opens one with `run.secret`
 * @param saga.refusal why it cannot be started at the moment: see `SagaDefinition`
 * @param saga.labels the labels of its jobs and traces, such as `{ serverId: context.server_id }`; for people to read
 * @throws {TypeError} naming the problem
 */
export function defineSaga<Input extends JsonObject, const Steps extends readonly AnyStep[], Given = unknown>(
  given: Readonly<{
    name: string;
    input: z.ZodType<Input, Given>;
    steps: Steps;
    subject?: (saga: FactsOf<NoInfer<Input>, Steps>) => About;
    words?: Partial<SagaWords<FactsOf<NoInfer<Input>, Steps>>>;
    isDestructive?: boolean;
    resource?(saga: FactsOf<NoInfer<Input>, Steps>): string | null | undefined;
    labels?: (saga: Pick<FactsOf<NoInfer<Input>, Steps>, 'input' | 'context'>) => Labels;
    secrets?: readonly string[];
    refusal?: SagaDefinition<never>['refusal'];
  }>,
): NamedSaga<AllOf<DepsOf<Steps[number]>>, Input, OutputsOf<Steps>, Given> {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the engine calls these functions with what the types say
  const saga = given as unknown as Omit<NamedSaga<AllOf<DepsOf<Steps[number]>>, Input, JsonObject, Given>, 'outputs'> & { subject?: (saga: SagaFacts) => About };
  checkSaga(saga);
  const { subject, words = {}, ...rest } = saga;
  requireSteps(saga.name, saga.steps);
  checkNeeds(saga);
  requireCarriedOut(saga);
  const fields = fieldsOf(saga.input);
  // A secret with a misspelled name would be stored in plain text. So an object declares its secrets even if it takes any field.
  const declared = fields ?? declaredFields(saga.input);
  const misnamed = saga.secrets?.find((field) => declared?.has(field) === false);
  if (misnamed !== undefined) throw new TypeError(`saga ${saga.name}: secret ${misnamed} is no field of the input`);
  const notText = saga.secrets?.find((field) => {
    const schemas = schemasOf(saga.input, field);
    return schemas.length > 0 && !schemas.some(mayBeText);
  });
  if (notText !== undefined) throw new TypeError(`saga ${saga.name}: secret ${notText} can never be text by its schema; a secret is sealed as text, such as z.string()`);
  // A step with a misspelled field would be left out of every saga.
  const fieldless = saga.steps.find(({ onlyWith }) => onlyWith !== undefined && fields?.has(onlyWith) === false);
  if (fieldless !== undefined) throw new TypeError(`saga ${saga.name}: step ${fieldless.name} is \`onlyWith\` ${fieldless.onlyWith}, which is no field of the input`);
  const added: z.ZodRawShape = Object.fromEntries(saga.steps.flatMap(({ adds, onlyWith }) => Object.entries((onlyWith === undefined ? adds : adds?.partial())?.shape ?? {})));
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the type says what the shapes do
  const outputs = z.looseObject(added) as unknown as z.ZodType<OutputsOf<Steps>>;
  return { ...rest, outputs, words: subject === undefined ? words : { ...words, subject: (facts) => aboutOf(saga.name, subject(facts)) } };
}

// oxlint-disable-next-line typescript/no-explicit-any -- of whatever types: they are taken from it
type AnySaga = NamedSaga<any, any, any, any>;

/** What all steps of an app depend on. */
type DepsOfAll<Sagas extends readonly AnySaga[]> = AllOf<DepsOf<Sagas[number]['steps'][number]>> & object;

/**
 * Defines an app.
 *
 * @param app.sagas all that run on a database, with unique names; several sagas may share a step, but two different steps
 *   must not share a name
 * @param app.deps opens the dependencies of the steps
 * @throws {TypeError} naming the problem
 */
export function defineApp<const Sagas extends readonly AnySaga[]>(
  app: Readonly<{ sagas: Sagas; deps: (context: AppContext) => DepsOfAll<Sagas> | Promise<DepsOfAll<Sagas>> }>,
): App {
  checkApp(app);
  const { deps } = app;
  const sagas: readonly NamedSaga[] = app.sagas;
  if (sagas.length === 0) throw new TypeError('app: expected at least one saga');
  const twice = nameTwice(sagas);
  if (twice !== undefined) throw new TypeError(`app: saga ${twice} is listed twice`);
  const catalog: Catalog<never> = Object.fromEntries(sagas.map((saga) => [saga.name, saga]));
  checkCatalog(catalog);
  return { kind: 'arcadia-app', sagas, catalog, openDeps: async (context) => deps(context) };
}

/** Whether a value is an app, including one created by another copy of this package. */
export function isApp(value: unknown): value is App {
  return typeof value === 'object' && value !== null && 'kind' in value && value.kind === 'arcadia-app';
}

function aboutOf(saga: string, { kind = saga, name = null, id = null }: About): Subject {
  return { kind, name, id: id === null ? null : String(id) };
}
