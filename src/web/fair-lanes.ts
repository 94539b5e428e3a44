// One piece of work at a time, in turns over lanes: whoever fills a lane of their own keeps nobody else waiting.

/** Thrown if too much waits in a lane already. */
export class LaneFullError extends Error {
  override readonly name = 'LaneFullError';
}

export type FairLanes = <T>(lane: string, work: () => Promise<T>) => Promise<T>;

/**
 * Makes the lanes.
 *
 * @param most how many pieces of work may wait in one lane
 * @param mostLanes how many lanes there may be at a time
 */
export function fairLanes({ most, mostLanes }: Readonly<{ most: number; mostLanes: number }>): FairLanes {
  // In the order of their turns. An empty lane is none.
  const lanes = new Map<string, (() => Promise<void>)[]>();
  let isRunning = false;
  const run = async (): Promise<void> => {
    isRunning = true;
    for (let [next] = lanes; next !== undefined; [next] = lanes) {
      const [lane, waiting] = next;
      const work = waiting.shift();
      lanes.delete(lane);
      // Behind the others.
      if (waiting.length > 0) lanes.set(lane, waiting);
      await work?.();
    }
    isRunning = false;
  };
  return async (lane, work) => {
    const waiting = lanes.get(lane) ?? [];
    if (waiting.length >= most || (waiting.length === 0 && lanes.size >= mostLanes)) throw new LaneFullError('too much is waiting');
    return new Promise((resolve, reject) => {
      waiting.push(() => work().then(resolve, reject));
      lanes.set(lane, waiting);
      if (!isRunning) void run();
    });
  };
}
