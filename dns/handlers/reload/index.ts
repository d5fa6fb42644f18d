import { duration } from '../../../lib/options.ts'
import { CorefileError } from '../../corefile.ts'
import type { Plugin } from '../plugin.ts'

/** Looks at the Corefile and what it imports now and then, and takes what has changed. */
export const reload: Plugin = {
  name: 'reload',
  build: (lines, place) => {
    for (const line of lines) {
      const ms = line.args[0] === undefined ? 30_000 : duration(line.args[0])
      if (ms === undefined || ms < 100) throw new CorefileError(line, 'reload: expected a duration such as 30s')
      place.options.reload = ms
    }
    return []
  },
}
