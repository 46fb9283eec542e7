import { Column, Entity, PrimaryGeneratedColumn } from "typeorm";

@Entity()
export class Todo {
  @PrimaryGeneratedColumn()
  id!: number;

  @Column("text")
  task!: string;

  @Column("boolean", { default: false })
  isCompleted!: boolean;
}
