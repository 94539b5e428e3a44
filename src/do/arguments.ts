// What must hold of an argument before a request is sent with it: it stands in a path, a query or a header.

/**
 * Returns the URL without a slash at its end.
 *
 * @throws {TypeError} for what is no plain http or https URL
 */
export function readBaseUrl(apiUrl: string): string {
  const url = URL.parse(apiUrl);
  if (url === null || !['http:', 'https:'].includes(url.protocol)) {
    throw new TypeError('the API URL must be an http or https URL');
  }
  if (url.username !== '' || url.password !== '' || url.search !== '' || url.hash !== '') {
    throw new TypeError('the API URL must have no user, password, query or fragment');
  }
  return url.origin + url.pathname.replace(/\/+$/, '');
}

/** @throws {TypeError} */
export function checkToken(token: string): void {
  if (!/^[\u0021-\u007e]+$/.test(token)) {
    throw new TypeError('the API token must be printable ASCII without spaces, and not empty');
  }
}

/**
 * A wrong id in a URL could name another droplet. `/v2/droplets/` without an id but with a query could address every
 * droplet of a tag.
 *
 * @throws {RangeError}
 */
export function checkId(what: string, id: number): void {
  if (!Number.isSafeInteger(id) || id <= 0) {
    throw new RangeError(`${what} id must be a positive safe integer, not ${typeof id === 'number' ? id : typeof id}`);
  }
}

/** @throws {RangeError} */
export function checkTag(tag: string): void {
  if (!/^[a-zA-Z0-9_\-:]{1,255}$/.test(tag)) {
    throw new RangeError('a tag must be 1 to 255 letters, digits, dashes, underscores and colons');
  }
}

/** @throws {RangeError} */
export function checkImage(slugOrId: string | number): void {
  if (!/^[a-zA-Z0-9._-]{1,100}$/.test(String(slugOrId)) || /^\.+$/.test(String(slugOrId))) throw new RangeError('an image must be a slug or an id');
}

/** @throws {RangeError} */
export function checkUuid(id: string): void {
  if (!/^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(id)) throw new RangeError('the id of a project must be a UUID in lower case');
}

/**
 * An empty name is no filter: DigitalOcean would list every droplet.
 *
 * @throws {RangeError}
 */
export function checkName(name: string | undefined): void {
  if (name === undefined || name === '') throw new RangeError('the name to list droplets by must not be empty');
}

/** @throws {TypeError} */
export function checkPath(path: string): void {
  if (!/^(?:\/[a-zA-Z0-9_-]+)+$/.test(path)) {
    throw new TypeError('the path of a list must be like /v2/droplets');
  }
}
