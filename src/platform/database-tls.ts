// The TLS options of a connection to Postgres, the same for both drivers. By themselves they interpret a URL differently:
// `sslmode=require` verifies the certificate in one but not in the other.
import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { checkServerIdentity, createSecureContext, getCACertificates } from 'node:tls';
import type { ConnectionOptions, SecureContext } from 'node:tls';
import { ConfigError } from './config-error.ts';
import type { DatabaseAddress, DatabaseTls } from './database-url.ts';
import { errorCodeOf } from './error-code.ts';

/**
 * Returns the options of `tls.connect`; false: not encrypted. As in libpq, `require` encrypts. With a root certificate it
 * also verifies the chain, as `verify-ca` does. `verify-full` also verifies the name.
 *
 * @throws {ConfigError} if a certificate or a key is unusable
 */
export function tlsOptions({ tls, hosts }: DatabaseAddress): ConnectionOptions | false {
  if (tls === null) return false;
  // With several hosts, the drivers pass on no name for an IP address, so the certificate cannot be compared with one.
  if (tls.mode === 'verify-full' && hosts.length > 1 && hosts.some(({ host }) => isIP(host) !== 0)) {
    throw new ConfigError('DATABASE_URL: sslmode: verify-full with several hosts needs their names, not IP addresses');
  }
  return {
    rejectUnauthorized: tls.mode !== 'require' || tls.rootCert !== null,
    checkServerIdentity: tls.mode === 'verify-full' ? (name, certificate) => checkServerIdentity(identityOf(hosts) ?? name, certificate) : () => undefined,
    secureContext: secureContextOf(tls),
  };
}

/** Created here, because a driver that meets an invalid certificate file throws where nothing catches it. */
function secureContextOf(tls: DatabaseTls): SecureContext {
  const files = {
    ...(tls.rootCert === null ? {} : { ca: tls.rootCert === 'system' ? systemCertificates() : read('sslrootcert', tls.rootCert) }),
    ...(tls.cert === null ? {} : { cert: read('sslcert', tls.cert) }),
    ...(tls.key === null ? {} : { key: read('sslkey', tls.key) }),
    ...(tls.keyPassword === null ? {} : { passphrase: tls.keyPassword }),
    ...(tls.crl === null ? {} : { crl: read('sslcrl', tls.crl) }),
    ...(tls.minVersion === null ? {} : { minVersion: tls.minVersion }),
    ...(tls.maxVersion === null ? {} : { maxVersion: tls.maxVersion }),
  };
  try {
    return createSecureContext(files);
  } catch (error) {
    throw new ConfigError(`DATABASE_URL: sslrootcert, sslcert, sslkey, sslpassword or sslcrl: not as expected, PEM files that belong together (${errorCodeOf(error) ?? 'unknown error'})`, { cause: error });
  }
}

/** The system's certificate authorities. A system without any, such as our own image, has those that Node brings. */
export function systemCertificates(): string[] {
  const ofSystem = getCACertificates('system');
  return ofSystem.length === 0 ? getCACertificates('bundled') : ofSystem;
}

/** For an IP address, the drivers would compare the certificate with the name `localhost`. */
function identityOf(hosts: DatabaseAddress['hosts']): string | null {
  const [first, ...others] = hosts;
  return first === undefined || others.length > 0 ? null : first.host;
}

function read(parameter: string, file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw new ConfigError(`DATABASE_URL: ${parameter}: the file cannot be read (${errorCodeOf(error) ?? 'unknown error'})`, { cause: error });
  }
}

/**
 * Explains a failed connection if the URL caused it: an untrusted server, or one without TLS. Returns any other error
 * unchanged.
 */
export function explainConnectionError(error: unknown): unknown {
  if (!(error instanceof Error)) return error;
  const code = errorCodeOf(error) ?? '';
  if (/^(CERT_|CRL_|DEPTH_ZERO_SELF_SIGNED_CERT|SELF_SIGNED_CERT|UNABLE_TO_|ERR_TLS_CERT_ALTNAME_INVALID|HOSTNAME_MISMATCH|INVALID_CA|INVALID_PURPOSE)/.test(code)) {
    const what = code === 'ERR_TLS_CERT_ALTNAME_INVALID' ? 'is not for the host in the URL, as sslmode=verify-full expects' : 'is not trusted; sslrootcert names the certificate of the authority that signed it';
    return new ConfigError(`DATABASE_URL: sslmode: the server's certificate ${what} (${code})`, { cause: error });
  }
  if (error.message === 'The server does not support SSL connections') {
    return new ConfigError('DATABASE_URL: sslmode: the server does not offer TLS', { cause: error });
  }
  if (error.message.includes('before secure TLS connection was established')) {
    return Object.assign(new Error('Postgres ended the connection before it was encrypted: does it offer TLS, as sslmode in DATABASE_URL expects?', { cause: error }), { code });
  }
  return error;
}
