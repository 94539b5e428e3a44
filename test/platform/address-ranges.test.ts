// Which addresses are public, and which a configuration names.
import { describe, expect, test } from 'vitest';
import { isPublicAddress, rangesOf } from '../../src/platform/address-ranges.ts';

describe('public addresses', () => {
  test.each(['8.8.8.8', '1.1.1.1', '198.51.100.7', '198.18.0.2', '172.32.0.1', '100.128.0.1', '2604:a880::1', '2001:db8::2', '::ffff:8.8.8.8'])('%s is one', (address) => {
    expect(isPublicAddress(address)).toBe(true);
  });

  test.each([
    '0.0.0.0', '10.0.0.1', '100.64.0.1', '100.100.100.200', '127.0.0.1', '127.255.255.254', '169.254.169.254', '172.16.0.1', '172.31.255.255', '192.0.0.170', '192.168.1.1', '224.0.0.1', '255.255.255.255',
    '::', '::1', 'fe80::1', 'fe80::1%eth0', 'fc00::1', 'fd00:ec2::254', 'fec0::1', 'ff02::1',
    '::ffff:127.0.0.1', '::ffff:7f00:1', '::ffff:a9fe:a9fe', '0:0:0:0:0:ffff:10.0.0.1', '::127.0.0.1', '64:ff9b::7f00:1', '64:ff9b:1::1', '2002:7f00:1::', '2001:0:1::1',
    'localhost', '127.1', '2130706433', '0x7f.0.0.1', '0177.0.0.1', '127.0.0.1:80', 'metadata.google.internal', '', ' 8.8.8.8',
  ])('%s is none', (address) => {
    expect(isPublicAddress(address)).toBe(false);
  });
});

describe('ranges', () => {
  test('contain the addresses in them, however those are written', () => {
    const ranges = rangesOf(['127.0.0.0/8', '10.1.2.3', 'fd00::/8']);
    expect(['127.1.2.3', '::ffff:127.0.0.1', '::ffff:7f00:1', '10.1.2.3', 'fd12::1'].map((address) => ranges.contains(address))).toEqual([true, true, true, true, true]);
    expect(['10.1.2.4', '::1', '128.0.0.1', 'localhost', ''].map((address) => ranges.contains(address))).toEqual([false, false, false, false, false]);
  });

  test('none contain nothing', () => {
    expect([rangesOf([]).isEmpty, rangesOf([]).contains('127.0.0.1'), rangesOf(['127.0.0.1']).isEmpty]).toEqual([true, false, false]);
  });
});
