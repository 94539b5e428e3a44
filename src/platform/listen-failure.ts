// Says why a server of ours cannot listen, and what to do.
import { ConfigError } from './config-error.ts';
import { errorCodeOf } from './error-code.ts';

/**
 * Translates the error of a server that could not listen. A port in use is no ConfigError: supervisors do not restart a process after
 * those, and the port may be free a moment later. It keeps the code `EADDRINUSE`.
 *
 * @param address.settings names of the settings for the port and for the host
 * @param address.whatToDo about a port in use
 */
export function listenFailure(error: unknown, { host, port, settings, whatToDo }: Readonly<{ host: string; port: number; settings: Readonly<{ port: string; host: string }>; whatToDo: string }>): unknown {
  const at = `port ${port} of ${host}`;
  const code = errorCodeOf(error);
  if (code === 'EADDRINUSE') return Object.assign(new Error(`${at} is in use. ${whatToDo}`, { cause: error }), { code });
  if (code === 'EACCES') return new ConfigError(`${settings.port}: this user may not listen on ${at} (${code}); choose a port above 1023`);
  if (code === 'EADDRNOTAVAIL' || code === 'ENOTFOUND' || code === 'EINVAL') {
    return new ConfigError(`${settings.host}: ${host} is no address of this machine (${code}); give one that is, such as 127.0.0.1, or 0.0.0.0 for all of them`);
  }
  return error;
}
