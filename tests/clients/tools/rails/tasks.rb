# What `rails db:schema:dump`, `db:schema:load`, `db:structure:dump`, `db:structure:load`, `db:migrate` and `db:rollback` do, without an application.
require "active_record"

ActiveRecord::Base.configurations = { "test" => { "url" => ENV.fetch("DATABASE_URL") } }
tasks = ActiveRecord::Tasks::DatabaseTasks
tasks.env = "test"
tasks.root = Dir.pwd
tasks.db_dir = "generated"
tasks.migrations_paths = ["migrate"]
tasks.structure_load_flags = ["-v", "ON_ERROR_STOP=1"]
ActiveRecord::Base.schema_format = :ruby
config = ActiveRecord::Base.configurations.configs_for(env_name: "test").first
ActiveRecord::Base.establish_connection(config)
# As `SELECT` to whom all schemas are dumped says, of which there are three: :schema_search_path, :all, or a string.
ActiveRecord::Base.dump_schemas = ENV["SCHEMAS"].to_sym if ENV["SCHEMAS"]

case ARGV.fetch(0)
when "db:schema:dump"
  File.open(ARGV.fetch(1), "w") { |file| ActiveRecord::SchemaDumper.dump(ActiveRecord::Base.connection, file) }
when "db:schema:load"
  load(File.expand_path(ARGV.fetch(1)))
when "db:structure:dump"
  tasks.structure_dump(config, ARGV.fetch(1))
when "db:structure:load"
  tasks.structure_load(config, ARGV.fetch(1))
when "db:migrate"
  ActiveRecord::MigrationContext.new("migrate", ActiveRecord::SchemaMigration).migrate
when "db:rollback"
  ActiveRecord::MigrationContext.new("migrate", ActiveRecord::SchemaMigration).rollback
when "db:truncate_all"
  tasks.truncate_all
end
