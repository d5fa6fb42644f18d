import { wholeNumber, type Plugin } from '../plugin.ts'

/** Octets of the longest answer over UDP; 1232 without it. */
export const bufsize: Plugin = {
  name: 'bufsize',
  build: (lines, place) => {
    for (const line of lines) place.options.bufsize = line.args[0] === undefined ? 1232 : wholeNumber(line.args[0], line, 'bufsize', 512, 4096)
    return []
  },
}
