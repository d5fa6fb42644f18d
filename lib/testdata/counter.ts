// A worker that keeps a list of words and says what it has.
import { work } from '../workers.ts'

work<readonly string[], string>((post, table) => {
  let words = [...table]
  return {
    whole: (all) => void (words = [...all]),
    change: (word) => void words.push(word),
    message: (m) => {
      if (m === 'throw') throw new Error('as I was told')
      if (m === 'hang') for (;;);
      post.send({ index: post.index, data: post.data, words })
    },
    end: () => {},
  }
})
