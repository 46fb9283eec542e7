class AddNote < ActiveRecord::Migration[6.1]
  def change
    add_column :todo, :note, :text
    create_table :tags do |t|
      t.text :name
    end
  end
end
