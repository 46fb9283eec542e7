import { Controller, Get } from "@nestjs/common";
import { InjectRepository } from "@nestjs/typeorm";
import { Change } from "bemi/typeorm";
import { Repository } from "typeorm";

@Controller("changes")
export class ChangesController {
  constructor(@InjectRepository(Change, "bemi") private readonly changes: Repository<Change>) {}

  @Get()
  findAll() {
    return this.changes.find({ order: { commitPosition: "ASC", sequence: "ASC" } });
  }
}
