// For the classes of libraries, of which the code that is run here uses a few members.

/** Passes a part of something for the whole: a use of anything that is not there fails the schedule. */
// oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- the caller says what it stands for
export function standIn<T>(part: object): T {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- that it is unsafe is the point
  return part as T;
}
