// An ordinary worker process that knows only the saga of three steps. Argument: milliseconds per step.
import { loadConfig } from '../../src/platform/config.ts';
import { createLog } from '../../src/platform/create-log.ts';
import { directIo } from '../../src/platform/io.ts';
import { startWorker } from '../../src/processes/worker.ts';
import { noOpCatalog } from './no-op.ts';

process.once('disconnect', () => process.exit(1));
await startWorker(loadConfig(process.env), createLog('error'), directIo, { catalog: noOpCatalog({ stepMs: Number(process.argv[2] ?? 0) }), openDeps: () => Promise.resolve({}) });
process.send?.('ready');
