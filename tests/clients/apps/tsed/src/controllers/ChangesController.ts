import type { EntityManager } from "@mikro-orm/postgresql";
import { Controller } from "@tsed/di";
import { Em } from "@tsed/mikro-orm";
import { Get } from "@tsed/schema";
import { Change } from "bemi/mikro-orm";

@Controller("/changes")
export class ChangesController {
  @Em("bemi")
  private readonly em!: EntityManager;

  @Get("/")
  findAll() {
    return this.em.findAll(Change, { orderBy: { commitPosition: "asc", sequence: "asc" } });
  }
}
