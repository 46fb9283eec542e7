import { setTimeout } from "node:timers/promises";
import { bemiContext } from "bemi/pg";

/** 20 requests at once, each of a user of its own. run.sh looks at what was recorded of them. */
export const crowd = (client, insert) =>
  Promise.all(
    Array.from({ length: 20 }, (_, user_id) =>
      bemiContext({ client, user_id }, async () => {
        await insert(`Crowd ${user_id}`);
        await setTimeout(Math.random() * 20);
        await insert(`Crowd ${user_id}`);
      }),
    ),
  );
