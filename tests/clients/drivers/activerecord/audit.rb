require "json"

module Audit
  # Runs the block in a transaction, all changes of which carry the context.
  def self.acting(**context)
    ActiveRecord::Base.transaction do
      connection = ActiveRecord::Base.connection
      connection.execute("SELECT bemi.set_context(#{connection.quote(context.to_json)}, true)")
      yield
    end
  end

  # The same JSON without *: nothing in it ends the comment, or opens another.
  def self.comment(**context)
    "Bemi #{context.to_json.gsub("*", '\u002a')} Bemi"
  end
end
