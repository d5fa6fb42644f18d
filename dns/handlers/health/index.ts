import { duration } from '../../../lib/options.ts'
import { CorefileError } from '../../corefile.ts'
import { listenAddress, unknown, type Plugin } from '../plugin.ts'

/** Where `/health` is answered, and how long the server goes on after it was asked to end. */
export const health: Plugin = {
  name: 'health',
  build: (lines, place) => {
    for (const line of lines) {
      let lameduck = 0
      for (const option of line.block) {
        if (option.name !== 'lameduck') unknown(line, option)
        const ms = duration(option.args[0] ?? '')
        if (ms === undefined) throw new CorefileError(option, 'lameduck: expected a duration such as 5s')
        lameduck = ms
      }
      place.options.health = { ...listenAddress(line, 8080), lameduck }
    }
    return []
  },
}
